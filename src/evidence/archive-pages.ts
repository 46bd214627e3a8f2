import { placeText, verdictText } from './verify-views.ts'
import type { Range, Verification, VerifiedDay } from './verify.ts'

/**
 * The pages of an archive. They hold no time and no machine, so that the same packs make the same archive; and they are
 * not signed, so they say that nothing on them proves anything.
 */

export type Cover = { readonly range: Range; readonly found: Verification }

export function coverText({ range, found }: Cover): string {
  return [
    'EVIDENCE OF A FLEET OF AGENTS',
    '',
    `Days       ${range.from} to ${range.to} (UTC)`,
    ...keyLines(found).map((line, index) => (index === 0 ? 'Key' : '').padEnd(11) + line),
    `Verdict    ${overall(found)}`,
    '',
    'This page is not signed: nothing on it proves anything. HOW-TO-CHECK.txt says how to check the packs themselves.',
    'Compare the fingerprint above with the one that the operator gave you by another way.',
    '',
    'day         checked     says      kind',
    ...found.days.map((day) =>
      [
        day.day.padEnd(12),
        dayText(day).padEnd(12),
        (day.says ?? '-').padEnd(10),
        kind(day),
        ...(day.manifest_sha256 === null ? [] : [`\n            manifest ${day.manifest_sha256}`]),
      ].join(''),
    ),
    ...found.broken.map((place, index) => `${index === 0 ? '\nWrong\n' : ''}- ${placeText(place)}`),
    '',
    'What was checked when this archive was made',
    ...found.checked.map((text) => `- ${text}`),
    '',
    'What was not',
    ...found.unchecked.map((text) => `- ${text}`),
    '',
  ].join('\n')
}

export function coverHtml({ range, found }: Cover): string {
  const rows = found.days.map(
    (day) =>
      `<tr class="${day.verdict}"><td>${text(day.day)}</td><td>${text(dayText(day))}</td><td>${text(day.says ?? '–')}</td>` +
      `<td>${text(kind(day))}</td><td class="digest">${text(day.manifest_sha256 ?? '–')}</td></tr>`,
  )
  const list = (items: readonly string[]) => `<ul>${items.map((item) => `<li>${text(item)}</li>`).join('')}</ul>`
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evidence ${text(range.from)} to ${text(range.to)}</title>
<style>
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5b6470; --line: #d5dae0; --paper: #fff; --bad: #a4161a; --good: #1b6e3c }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4adb8; --line: #3a424c; --paper: #14171b; --bad: #ff8a80; --good: #7fd6a0 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .25rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.soft { color: var(--soft) } .digest, code { font: .8em/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap }
td.digest { white-space: normal; min-width: 16rem }
.broken td:nth-child(2) { color: var(--bad); font-weight: 600 } .verified td:nth-child(2) { color: var(--good) }
dt { color: var(--soft) } dd { margin: 0 0 .75rem }
@media print { body { margin: 0; max-width: none; font-size: 10pt } tr { break-inside: avoid } }
</style>
<h1>Evidence of a fleet of agents</h1>
<p class="soft">${text(range.from)} to ${text(range.to)}, days in UTC</p>
<dl>
<dt>Verdict when this archive was made</dt><dd><strong>${text(overall(found))}</strong></dd>
<dt>Fingerprint of the key. Compare it with the one that the operator gave you by another way.</dt>
${keyLines(found)
  .map((line) => `<dd><code>${text(line)}</code></dd>`)
  .join('\n')}
</dl>
<p>This page is not signed: nothing on it proves anything. <a href="HOW-TO-CHECK.txt">How to check the packs themselves</a>.</p>
<h2>Days</h2>
<div class="scroll"><table>
<thead><tr><th>day</th><th>checked</th><th>says</th><th>kind</th><th>sha256 of manifest.json</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></div>
${found.broken.length > 0 ? `<h2>Wrong</h2>${list(found.broken.map(placeText))}` : ''}
<h2>What was checked when this archive was made</h2>${list(found.checked)}
<h2>What was not</h2>${list(found.unchecked)}
</html>
`
}

export function howToCheck({ range, found }: Cover): string {
  const first = found.days.find(({ kind: what }) => what === 'pack')?.day ?? range.from
  return `HOW TO CHECK THIS

Each folder is the evidence of one day (UTC). You need the operator's public key, as a PEM file, from somewhere else than
this archive: from them by another way, or from an earlier audit. Its fingerprint is on the cover:

  openssl pkey -pubin -in key.pem -outform DER | sha256sum

1. With what every machine has: sh, sha256sum, coreutils and openssl 3. Take VERIFY.sh from somewhere else too, if you
   can: whoever can change the packs can change the VERIFY.sh in them.

     sh VERIFY.sh key.pem ${first}
     sh VERIFY-ALL.sh key.pem VERIFY.sh

   It ends with 0 when every check passed, 1 when something is wrong (each place is named), 3 when it can't tell. It
   prints what it did not check. It follows no replaced keys: where the cover names several, each day needs its own.

2. By hand, for one day:

     cd ${first}
     sha256sum -c SHA256SUMS
     openssl pkeyutl -verify -pubin -inkey ../key.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig

   Nothing but what SHA256SUMS names may lie in the folder.

3. All of it, with tms, offline. kept.txt is a checkpoint of the ledger that you kept from before, or that a witness has;
   without one, a ledger that was rewritten as a whole would pass, and the verdict is "unanchored".

     tms evidence verify <this archive> --days ${range.from}..${range.to} --key key.pem --checkpoint kept.txt

RANGE.txt says which days this archive holds: without --days these are the days that must be in it. It isn't signed, so
say yourself which days you expect. A folder of days that has no RANGE.txt must begin with the first day there ever was.

Days without a folder: tombstones/ has a signed note for each day whose pack expired and was deleted. A day with neither
is missing, and that is a finding. A red day is evidence too: whether a pack verifies and whether its day was good are two
questions.

Formats: SHA256SUMS.sig is a raw Ed25519 signature over SHA256SUMS. attestation.sigstore.json is a Sigstore bundle (DSSE,
in-toto). checkpoint.txt and inclusion.tlog-proof are C2SP tlog-checkpoint and tlog-proof over an RFC 6962 tree, and
manifest-row.txt is the leaf. Keep checkpoint.txt of the last day: it is what you check the next archive against.
`
}

/** Runs VERIFY.sh over the days. In itself it proves nothing: it only spares typing. */
export const verifyAllScript = `#!/bin/sh
# Runs VERIFY.sh for each day beside this script.
#
#   sh VERIFY-ALL.sh <key.pem> <VERIFY.sh>
#
# Ends with the worst of their results: 0 all passed, 1 something is wrong, 3 can't tell.
if [ "$#" -ne 2 ] || [ ! -f "$1" ] || [ ! -f "$2" ]; then
  printf 'usage: sh VERIFY-ALL.sh <key.pem> <VERIFY.sh>\\n' >&2
  exit 3
fi
case $0 in
  */*) here=\${0%/*} ;;
  *) here=. ;;
esac
worst=0
days=0
for day in "$here"/[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]; do
  [ -d "$day" ] || continue
  days=$((days + 1))
  sh "$2" "$1" "$day" >/dev/null 2>&1
  code=$?
  case $code in
    0) word=passed ;;
    1) word=BROKEN ;;
    *) word="can't tell" ;;
  esac
  printf '%s  %s\\n' "\${day##*/}" "$word"
  if [ "$code" -eq 1 ] || { [ "$code" -ne 0 ] && [ "$worst" -eq 0 ]; }; then
    [ "$code" -eq 1 ] || code=3
    worst=$code
  fi
done
printf '%s days. Missing days and tombstones are not looked at here.\\n' "$days"
[ "$days" -gt 0 ] || exit 3
exit "$worst"
`

function overall({ verdict, unanchored }: Verification): string {
  return verdict === 'unanchored'
    ? `unanchored: ${unanchored.some((why) => why.includes('--key')) ? 'no key from outside' : 'every check passed, without a checkpoint from outside'}`
    : verdictText(verdict)
}

function keyLines({ days }: Verification): readonly string[] {
  const used = new Map<string, { from: string; to: string }>()
  for (const { key, day } of days) if (key !== null) used.set(key, { from: used.get(key)?.from ?? day, to: day })
  if (used.size === 0) return ['none']
  return [...used].map(([key, { from, to }]) => (used.size === 1 ? key : `${key} (${from} to ${to})`))
}

function dayText({ verdict, kind: what }: VerifiedDay): string {
  if (what === 'missing') return 'MISSING'
  if (what === 'before') return '-'
  return verdict === 'broken' ? 'BROKEN' : verdictText(verdict)
}

function kind({ kind: what, final, revision }: VerifiedDay): string {
  if (what === 'pack') return final === false ? `provisional, revision ${revision ?? '?'}` : 'final'
  if (what === 'tombstone') return 'expired: a tombstone'
  return what === 'missing' ? 'neither pack nor tombstone' : 'before the first pack'
}

function text(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
