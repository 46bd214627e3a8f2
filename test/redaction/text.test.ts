import { describe, expect, test } from 'vitest'
import { redactText } from '../../src/redaction/redact.ts'

describe('redactText', () => {
  test.each([
    ['write to ann.o+x@example.co.uk, please', 'write to [redacted:email], please'],
    ['to="Ann Smith"@example.com', 'to=[redacted:email]'],
    ['https://x.example/?to=ann%40example.com&n=1', 'https://x.example/?to=[redacted:email]&n=1'],
    ['call (415) 555-0100 or +44 20 7946 0958.', 'call [redacted:phone] or [redacted:phone].'],
    ['tel:4155550100', 'tel:[redacted:phone]'],
    ['card 4111 1111 1111 1111 exp 05/27', 'card [redacted:card] exp 05/27'],
    ['PAN4111111111111111', 'PAN[redacted:card]'],
    ['4111.1111.1111.1111, 4111/1111/1111/1111', '[redacted:card], [redacted:card]'],
    ['4111_1111_1111_1111 and 3782.822463.10005.', '[redacted:card] and [redacted:card].'],
    ['paid with 4111 1111\n1111 1111\n', 'paid with [redacted:card]\n'],
    ['ssn 123-45-6789.', 'ssn [redacted:ssn].'],
    [
      'SSN 123456789, social security number is 123456789',
      'SSN [redacted:ssn], social security number is [redacted:ssn]',
    ],
    ['DE89 3704 0044 0532 0130 00 was paid', '[redacted:iban] was paid'],
    ['Authorization: Bearer abc.def', 'Authorization: Bearer [redacted:authorization]'],
    [`Authorization: Digest username="a", response="b"`, 'Authorization: [redacted:authorization]'],
    [`curl -H 'Cookie: a=b; c=d' -v`, `curl -H 'Cookie: [redacted:cookie]' -v`],
    ['-----BEGIN PRIVATE KEY-----\nMIIabc\nthe rest was cut', '[redacted:private-key]'],
    ['postgres://tms:s3cret@db:5432/x', 'postgres://[redacted:credentials]@db:5432/x'],
    ['postgres://u:p@ss/w#rd@db.host/x?sslmode=require', 'postgres://[redacted:credentials]@db.host/x?sslmode=require'],
    ['https://u:p/w@x.example/a', 'https://[redacted:credentials]@x.example/a'],
    [
      'x.example/?to=https%3A%2F%2Fann%3Ahunter2%40host&n=1',
      'x.example/?to=https%3A%2F%2F[redacted:credentials]%40host&n=1',
    ],
    [
      'https://x.example/?to=postgres%3a%2f%2fu%3Ap%2540s%2Fw%40db.host%2Fx%3Fa%3Db',
      'https://x.example/?to=postgres%3a%2f%2f[redacted:credentials]%40db.host%2Fx%3Fa%3Db',
    ],
    [
      'to=https%253A%252F%252Fu%253Ahunter2%2540host%252Fa',
      'to=https%253A%252F%252F[redacted:credentials]%2540host%252Fa',
    ],
    ['to=https%3A//u:hunter2@host/a', 'to=https%3A//[redacted:credentials]@host/a'],
    ['https://x.example/?pw=hunter2&page=2', 'https://x.example/?pw=[redacted:secret]&page=2'],
    ['psw: hunter2, sessionId=4f2a', 'psw: [redacted:secret], sessionId=[redacted:secret]'],
    ['bearer: abc.def', 'bearer: [redacted:authorization]'],
    ['password: >-\n  hunter2\n  hunter3\nhost: db', 'password: >-\n  [redacted:secret]\nhost: db'],
    ['{"yaml":"password: |\\n  hunter2\\nhost: db"}', '{"yaml":"password: |\\n  [redacted:secret]\\nhost: db"}'],
    [
      'password: |2- # new\n\n  hunter2\n\n    hunter3\n\nhost: db',
      'password: |2- # new\n\n  [redacted:secret]\n\nhost: db',
    ],
    [
      String.raw`{"y":"password: |\n  hunter2\n\n   hunt\"er3\nhost: db"}`,
      String.raw`{"y":"password: |\n  [redacted:secret]\nhost: db"}`,
    ],
    [
      String.raw`{"y":"a:\n  token: !!str >-\r\n    hunter2\r\n    hunter3","n":1}`,
      String.raw`{"y":"a:\n  token: !!str >-\r\n    [redacted:secret]","n":1}`,
    ],
    [
      String.raw`"{\"y\":\"password: |\\n  hunter2\\n  hunter3\",\"n\":1}"`,
      String.raw`"{\"y\":\"password: |\\n  [redacted:secret]\",\"n\":1}"`,
    ],
    ['password=hunter2 host=db', 'password=[redacted:secret] host=db'],
    ['password=a,b&c;d host=db', 'password=[redacted:secret] host=db'],
    ['token: abc, next: 3', 'token: [redacted:secret], next: 3'],
    ['{"password":"hunt\\"er2","x":1}', '{"password":"[redacted:secret]","x":1}'],
    ['{\\"api_key\\":\\"abc\\",\\"y\\":2}', '{\\"api_key\\":\\"[redacted:secret]\\",\\"y\\":2}'],
    [
      '{"first_name":"Ann","address":{"street":"x"},"k":1}',
      '{"first_name":"[redacted:name]","address":[redacted:address],"k":1}',
    ],
    ['{"name":"password","value":"hunter2"}', '{"name":"password","value":"[redacted:secret]"}'],
    [
      "[{'value': 'hunter2', 'in': 'header', 'key': 'x-api-key'}]",
      "[{'value': '[redacted:secret]', 'in': 'header', 'key': 'x-api-key'}]",
    ],
    ['{"name":"pin","meta":{"value":1},"value":4321}', '{"name":"pin","meta":{"value":1},"value":[redacted:secret]}'],
    [
      String.raw`{\"name\":\"password\",\"value\":\"hunter2\"}`,
      String.raw`{\"name\":\"password\",\"value\":\"[redacted:secret]\"}`,
    ],
    [
      String.raw`"{\\\"value\\\": \\\"hunter2\\\", \\\"name\\\": \\\"password\\\"}"`,
      String.raw`"{\\\"value\\\": \\\"[redacted:secret]\\\", \\\"name\\\": \\\"password\\\"}"`,
    ],
    ['ame":"x","name":"password","value":"hunter2"}', 'ame":"x","name":"password","value":"[redacted:secret]"}'],
    [
      '- name: DB_PASSWORD\n  value: hunter2\n- name: A\n  value: b',
      '- name: DB_PASSWORD\n  value: [redacted:secret]\n- name: A\n  value: b',
    ],
    [
      String.raw`{"y":"- name: DB_PASSWORD\n  value: hunter2\n"}`,
      String.raw`{"y":"- name: DB_PASSWORD\n  value: [redacted:secret]\n"}`,
    ],
    [
      '<input type="password" @click="x" [y]=z value="hunter2">',
      '<input type="password" @click="x" [y]=z value="[redacted:secret]">',
    ],
    ["curl -u ann:'hunt er2' x", "curl -u [redacted:credentials]' x"],
    [String.raw`curl -u ann:hunt\$er2 x`, 'curl -u [redacted:credentials] x'],
    ['curl -u \\\n  ann:hunter2 x', 'curl -u \\\n  [redacted:credentials] x'],
    ['<password>hunter2</password>', '<password>[redacted:secret]</password>'],
    [
      '<wsse:Password Type="#PasswordText">hunter2</wsse:Password>',
      '<wsse:Password Type="#PasswordText">[redacted:secret]</wsse:Password>',
    ],
    ['<input type="password" value="hunter2">', '<input type="password" value="[redacted:secret]">'],
    [
      "<INPUT value='hunt > er2' class=a disabled Type=PASSWORD />",
      "<INPUT value='[redacted:secret]' class=a disabled Type=PASSWORD />",
    ],
    ['<input name="api_key" value=hunter2><p>', '<input name="api_key" value=[redacted:secret]><p>'],
    ['<meta content="hunter2" name="csrf-token"/>', '<meta content="[redacted:secret]" name="csrf-token"/>'],
    ['<add key="DbPassword"\n  value="hunter2"/>', '<add key="DbPassword"\n  value="[redacted:secret]"/>'],
    [
      String.raw`{"html":"<input value=\"hunter2\" type=\"password\">"}`,
      String.raw`{"html":"<input value=\"[redacted:secret]\" type=\"password\">"}`,
    ],
    ['<password><![CDATA[hunter2]]></password>', '<password><![CDATA[[redacted:secret]]]></password>'],
    [String.raw`{"url":"https:\/\/u:hunter2@h\/"}`, String.raw`{"url":"https:\/\/[redacted:credentials]@h\/"}`],
    ['phone=+44 20 7946 0958, fax:', 'phone=[redacted:phone], fax:'],
    ['tms --token abc123 --json', 'tms --token [redacted:secret] --json'],
    ['curl -s -u ann:hunter2 https://x.example/', 'curl -s -u [redacted:credentials] https://x.example/'],
    ['curl -fsSu "ann:hunt er2" x', 'curl -fsSu "[redacted:credentials]" x'],
    [String.raw`{"run":"curl -u \"ann:hunter2\" x"}`, String.raw`{"run":"curl -u \"[redacted:credentials]\" x"}`],
    ['curl --user ann:hunter2.', 'curl --user [redacted:credentials].'],
    ["curl x \\\n  --user='ann:hunter2'", "curl x \\\n  --user='[redacted:credentials]'"],
    ['curl --proxy-user=ann:hunter2 -v', 'curl --proxy-user=[redacted:credentials] -v'],
    ['/usr/bin/curl -uann:hunter2 x', '/usr/bin/curl -u[redacted:credentials] x'],
    ['["curl","-u","ann:hunter2"]', '["curl","-u","[redacted:credentials]"]'],
    ['curl x -u k3y0f4n4cc0unt: -d a=b', 'curl x -u [redacted:credentials]: -d a=b'],
    [String.raw`curl -u ACME\ann:hunter2 x`, 'curl -u [redacted:credentials] x'],
    [
      'wget --password=hunter2 --http-password=x1',
      'wget --password=[redacted:secret] --http-password=[redacted:secret]',
    ],
    ['wget --http-user=ann:hunter2 x', 'wget --http-user=[redacted:credentials] x'],
    ['machine db.host login ann password hunter2', 'machine db.host login ann password [redacted:secret]'],
    [
      'machine h\n  login ann\n  password hunter2\nmachine i login bob password x1\n',
      'machine h\n  login ann\n  password [redacted:secret]\nmachine i login bob password [redacted:secret]\n',
    ],
    ['machine h password hunter2 login ann', 'machine h password [redacted:secret] login ann'],
    ['default login ann account b password "hunt er2"', 'default login ann account b password "[redacted:secret]"'],
    [
      String.raw`{"netrc":"machine h\n\tlogin ann\n\tpassword hunter2\n"}`,
      String.raw`{"netrc":"machine h\n\tlogin ann\n\tpassword [redacted:secret]\n"}`,
    ],
    [`alter role x password 'abc def'`, `alter role x password '[redacted:secret]'`],
    ['Key (company_id, ssn)=(x, 123456789) already exists.', 'Key (company_id, ssn)=([redacted:ssn]) already exists.'],
    ['Failing row contains (1, Ann, Smith, null).', 'Failing row contains ([redacted:row]).'],
    ['https://x.example/?sig=abc&page=2', 'https://x.example/?sig=[redacted:secret]&page=2'],
    ['hooks.slack.com/services/T0/B0/abc is gone', 'hooks.slack.com/services/[redacted:webhook] is gone'],
    ['phone: 020 7946 0958 and cvv: 123', 'phone: [redacted:phone] and cvv: [redacted:card]'],
    ['password=[redacted:email]hunter2', 'password=[redacted:secret]'],
    ['ａｎｎ＠example．com', '[redacted:email]'],
    ['٤١١١١١١١١١١١١١١١', '[redacted:card]'],
    ['an\u200bn@exam\u00adple.com', '[redacted:email]'],
  ])('%s', (given, safe) => {
    expect(redactText(given)).toBe(safe)
    expect(redactText(safe)).toBe(safe)
  })

  test.each([
    'a card must pass Luhn: 4111 1111 1111 1112',
    'and an IBAN its check digits: DE88 3704 0044 0532 0130 00',
    // A decimal, a table and lists: none is a card that somebody wrote.
    '41111111.11111111 and 4111.1111 1111.1111',
    '4111\n1111\n1111\n1111\n',
    'ports 4111/1111, 1111/1111; [4111,1111,1111,1111]',
    'task 123456789, lessn 123456789',
    'tokens: > 4096, the session ended',
    '4bf92f3577b34da6a3ce929d0e0e4736 and 12345678-4111-1111-1111-111111111111',
    // A card's digits in a span id, in a digest and in a task's id.
    '00-4bf92f3577b34da6a3ce929d0e0e4736-4111111111111111-01',
    `sha256 a4111111111111111b${'0f'.repeat(23)}`,
    'task 87654321-4155-5501-0000-123456789012',
    'from 2024-05-01 12:00:00.123456+00 to 1714564800123',
    'address: unknown host; name: not found; email: missing',
    'token: null, password=***, secret: undefined',
    'git log --author x -- src/tokens',
    'curl -u is an option: it takes a name, --user too; curl -u: no name',
    'curl -u ann -v https://x.example/',
    'ls -u a:b, id --user=a:b',
    'see https%3A%2F%2Fhost%3A8080%2Fa%2Fuser%40v2 and 100%3A%2F',
    'the login was fine and the password reset worked; machine learning',
    'the default password is weak, the machine room password changed',
    'the machine operators login and password resets work',
    '<input type="text" name="load" value="LD-1"> <input type="submit" name="password-reset" value="Reset">',
    '<input type="password" value=""> <input name="max_tokens" value=512> a <b and type=password',
    '[{"name":"load","value":"LD-1"},{"name":"password"},{"value":"x"}], {"name":"max_tokens","value":512}',
    '{"name":"password"}, {"value":"x"} and "name":"password", then "name":"load","value":"LD-1"',
    '- name: load\n  value: LD-1',
    '{"name":"password","value":null} and the "name": "password", a "value": none',
    'secret: |\n\nhost: db\n  port: 1',
    'Basic Auth is off. Bearer of news. Basic settings',
    'std::token::x and secret://vault/path',
    'tokens: 512, pass: 12, max_tokens=4096, token_count: 3',
  ])('leaves alone: %s', (text) => {
    expect(redactText(text)).toBe(text)
  })
})

const bytes = process.env['TMS_TEST_FULL'] === '1' ? 2 ** 20 : 2 ** 18

describe(`a hostile text of ${bytes / 1024} KB`, () => {
  // The deadline is the assertion: a megabyte takes a second or two, and anything quadratic minutes, also of a quarter.
  test.each(
    [
      "a|4 |a@|a%40b.cc|:|pass_x=|token= |token='|token=a,|'cookie: x' |)=|(token)=(|eyJ|eyJaaaaaaaa.|x://a:b@|bearer ",
      "-----BEGIN A-----|-----BEGIN A-----END B-----|bearer+|password '|--token |<token>a</|Failing row contains (|) ",
      'SG.aaaaaaaaaaaaaaaa.|\u200b|\u0664 |DE89 |+1 |415-555-|abcdef01|hooks.slack.com/services/|\\"|"token":{|\u4e2d',
      'tel:|fax=|phone=|phone=1|--tel |email=|first-name:|sb|sb_|xox|xoxa.|password=x)|)|<a b|://|:\\/\\/|ssn:1a',
      'curl -u |curl -u \'|curl -u"|curl -ua:b|curl |curl --user=a: |curl -u a: | -u',
      'http%3A%2F%2F|%3A%2F%2Fa%3Ab%40|%3A//|%2F|%253A%252F%252F|%25|%3A%2F%2F%40|postgres%3A%2F%2Fa%3Ab%2F',
      'machine |machine a login |machine a login b password |machine a\n|login b |password c login d |machine a password ',
      '<input |<input value="|<input value=\'a" |<a name=token value=|<a name=token value=b>|<a b=c |<a type=password value=\\"',
      '{"name":"token"|{"value":"a","name":"token"}|{"name":"token","value":{|"value":"|"value":{|"name":"token",|{"value":"a"|{"value":|"name":"token","value":["|\\\\|\\\\"name',
      "curl -u a:'|curl -u \\\n|curl -u a:\\$|name: token\n value: |name: token\n|name: token\\n value: a",
      '"@a.co|[redacted:|token: >\n |token: |-\n a|token: >\\n |token: >\\n a|token: >\n\n|token: >\\n a\\n|token: > #|\\n|--token >\n |4111.|4/|4111\n|ssn |social security |4_',
    ].flatMap((units) => units.split('|').map((unit) => [unit])),
  )(
    'of %j ends in time',
    (unit) => {
      const text = unit.repeat(Math.ceil(bytes / unit.length))
      expect(redactText(text).length).toBeGreaterThan(0)
    },
    20_000,
  )
})
