/**
 * The text of VERIFY.sh, which lies in every pack and checks it without tms and without Node.
 *
 * It stands here and not in a file beside it because the bundle carries no other files. POSIX sh: it is tested with
 * dash, bash --posix and busybox. Its verdict never depends on reading a forged SHA256SUMS: it makes anew, from the
 * folder, the text that must stand there, and compares.
 */
export const verifyScript = `#!/bin/sh
# Checks the evidence pack of one day with sh, sha256sum, openssl and coreutils alone. Needs no network, writes nothing.
#
#   sh VERIFY.sh <key.pem> [folder]
#
# key.pem   the public key, from somewhere you trust: not out of the pack, not from whoever gave you the pack.
# folder    the day's folder, named YYYY-MM-DD. Without it: the folder that this script lies in.
#
# Whoever can change a pack can change the VERIFY.sh in it. Use a copy that you have from elsewhere.
#
# Ends with 0: every check passed. 1: something is wrong, each place is named. 3: can't tell (openssl is missing or
# older than 3, sha256sum is missing, a file can't be read).

set -u
set +f
unset GLOBIGNORE CDPATH
LC_ALL=C
export LC_ALL

nl='
'
problems=0
unknowns=0
max_bytes=67108864
max_files=100

passed=0
must_pass=5

ok() {
  passed=$((passed + 1))
  printf 'ok       %s\\n' "$1"
}
broken() {
  problems=$((problems + 1))
  printf 'BROKEN   %s\\n' "$1"
}
unknown() {
  unknowns=$((unknowns + 1))
  printf 'UNKNOWN  %s\\n' "$1"
}

# Names come from whoever made the pack: nothing of them may steer a terminal.
shown() { printf '%s' "$1" | head -c 100 | tr -c 'A-Za-z0-9._/ -' '?'; }

not_checked() {
  printf '\\nNot checked here (tms evidence verify does):\\n'
  printf '%s\\n' \\
    '  - that the ledger holds this pack: inclusion.tlog-proof, checkpoint.txt, manifest-row.txt' \\
    '  - that the ledger was only ever added to: consistency.txt, a checkpoint from outside' \\
    '  - the days before: manifest.json names the last one, whether it is there and untouched is open' \\
    '  - the key: whether it was valid on that day, was replaced or revoked since (keys.json)' \\
    '  - attestation.sigstore.json: its bytes are signed, its own signature was not looked at' \\
    '  - whether what the files say is true'
}

end() {
  printf '\\n'
  if [ "$problems" -gt 0 ]; then
    printf 'RESULT   broken: %s found\\n' "$problems"
    not_checked
    exit 1
  fi
  # Nothing wrong was seen: that is only good when each of the five checks was really made.
  if [ "$unknowns" -gt 0 ] || [ "$passed" -ne "$must_pass" ]; then
    printf "RESULT   can't tell: %s of %s checks passed, see UNKNOWN above\\n" "$passed" "$must_pass"
    not_checked
    exit 3
  fi
  printf 'RESULT   every check of this script passed\\n'
  not_checked
  exit 0
}

if [ "$#" -lt 1 ] || [ "$#" -gt 2 ] || [ -z "$1" ]; then
  printf 'usage: sh VERIFY.sh <key.pem> [folder]\\n' >&2
  exit 3
fi

# A name that begins with a dash, or looks like a URI to openssl, is a file all the same.
key=$1
case $key in
  /*) ;;
  *) key=./$key ;;
esac
if [ "$#" -eq 2 ]; then
  folder=$2
else
  case $0 in
    */*) folder=\${0%/*}/ ;;
    *) folder=. ;;
  esac
fi
case $folder in
  /*) ;;
  *) folder=./$folder ;;
esac

# ---- what is needed

for tool in head tr wc; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    unknown "$tool is missing on this machine"
    end
  fi
done
empty=$(printf '' | sha256sum 2>/dev/null)
case $empty in
  e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855*) ;;
  *)
    unknown 'sha256sum is missing on this machine, or does not work'
    end
    ;;
esac
if [ ! -d "$folder" ]; then
  unknown "$(shown "$folder") is no folder"
  end
fi
if [ ! -r "$folder" ] || [ ! -x "$folder" ]; then
  unknown "$(shown "$folder") can't be read"
  end
fi
where=$(cd "$folder" && pwd -P && printf x) || where=
where=\${where%"\${nl}x"}
day=\${where##*/}

# ---- the files: exactly those that SHA256SUMS names, with exactly those bytes
#
# What SHA256SUMS must say is made anew from the folder, and the two texts are compared as a whole. So whatever stands
# in a forged SHA256SUMS (../, absolute names, \\-escapes, CRLF, capitals, a line twice) is never followed: it differs.

found=' '
must=''
facts=''
count=0
readable=yes
before=$problems
for path in "$folder"/* "$folder"/.[!.]* "$folder"/..?*; do
  [ -e "$path" ] || [ -h "$path" ] || continue
  name=\${path##*/}
  count=$((count + 1))
  if [ "$count" -gt "$max_files" ]; then
    broken "the folder has more than $max_files entries; the rest was not looked at"
    break
  fi
  case $name in
    [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
      broken "$(shown "$name"): a pack has no file with such a name"
      continue
      ;;
  esac
  if [ -h "$path" ]; then
    broken "$(shown "$name"): is a link; a pack has only files"
    continue
  fi
  if [ ! -f "$path" ]; then
    broken "$(shown "$name"): is no ordinary file; a pack has only files"
    continue
  fi
  size=$(head -c $((max_bytes + 1)) <"$path" 2>/dev/null | wc -c)
  if [ "$size" -gt "$max_bytes" ]; then
    broken "$(shown "$name"): is larger than $max_bytes bytes"
    continue
  fi
  found="$found$name "
  case $name in
    SHA256SUMS | SHA256SUMS.sig) continue ;;
  esac
  sum=$(sha256sum <"$path" 2>/dev/null) || sum=
  sum=\${sum%% *}
  if [ "\${#sum}" -ne 64 ]; then
    unknown "$(shown "$name"): can't be read"
    readable=no
    continue
  fi
  must="$must$sum  $name$nl"
  case $name in
    index.html | manifest.json | attestation.sigstore.json | checkpoint.txt | inclusion.tlog-proof | consistency.txt) ;;
    manifest-row.txt | keys.json | VERIFY.sh) ;;
    *) facts="$facts\\"$name\\":\\"$sum\\"," ;;
  esac
done

for name in flags.json slo_snapshot.json outbox_lag.json audit_digest.json controls.json alerts.sql.out \\
  trace-sample.txt index.html manifest.json attestation.sigstore.json checkpoint.txt inclusion.tlog-proof \\
  consistency.txt manifest-row.txt keys.json VERIFY.sh SHA256SUMS SHA256SUMS.sig; do
  case $found in
    *" $name "*) ;;
    *) [ "$readable" = no ] || [ -e "$folder/$name" ] || broken "$name: is missing" ;;
  esac
done

case $found in
  *' SHA256SUMS '*)
    is=$(sha256sum <"$folder/SHA256SUMS" 2>/dev/null)
    should=$(printf '%s' "$must" | sha256sum)
    if [ "$is" != "$should" ]; then
      # The verdict stands; what follows only finds words for it.
      named=$problems
      listed=' '
      lines=0
      while IFS= read -r line || [ -n "$line" ]; do
        lines=$((lines + 1))
        if [ "$lines" -gt "$max_files" ]; then
          broken "SHA256SUMS: has more than $max_files lines"
          break
        fi
        sum=\${line%%"  "*}
        name=\${line#*"  "}
        case $sum in
          *[!0-9a-f]*) sum= ;;
        esac
        if [ "\${#sum}" -ne 64 ] || [ "$line" != "$sum  $name" ]; then
          broken "SHA256SUMS: line $lines is not '<64 lower-case hex digits>  <name>': $(shown "$line")"
          continue
        fi
        case $name in
          [!A-Za-z0-9]* | *[!A-Za-z0-9._-]* | '' | SHA256SUMS | SHA256SUMS.sig)
            broken "SHA256SUMS: line $lines names what it may not name: $(shown "$name")"
            continue
            ;;
        esac
        case $listed in
          *" $name "*)
            broken "SHA256SUMS: names $name twice"
            continue
            ;;
        esac
        listed="$listed$name "
        case $nl$must in
          *"$nl$sum  $name$nl"*) ;;
          *)
            case $found in
              *" $name "*) broken "$name: its bytes are not those that SHA256SUMS names" ;;
              *) [ "$readable" = no ] || broken "$name: is in SHA256SUMS and is no file of the folder" ;;
            esac
            ;;
        esac
      done 2>/dev/null <"$folder/SHA256SUMS"
      rest=$must
      while [ -n "$rest" ]; do
        name=\${rest%%"$nl"*}
        name=\${name#*"  "}
        rest=\${rest#*"$nl"}
        case $listed in
          *" $name "*) ;;
          *) broken "$name: is in the folder and not in SHA256SUMS" ;;
        esac
      done
      if [ "$problems" -eq "$named" ] && [ "$readable" = yes ]; then
        broken 'SHA256SUMS: is not in its one spelling (names in order, each line ended, nothing after the last)'
      fi
    fi
    ;;
esac
if [ "$problems" -eq "$before" ] && [ "$readable" = yes ]; then
  ok "every file is there, nothing else is, and all $((count - 2)) have the bytes that SHA256SUMS names"
fi

# ---- the signature, by the key from outside

fingerprint=
other_key=no
if ! command -v openssl >/dev/null 2>&1; then
  unknown 'openssl is missing on this machine: the signature was not checked'
elif [ ! -f "$key" ] || [ ! -r "$key" ]; then
  unknown "the key $(shown "$1") can't be read: the signature was not checked"
elif ! openssl pkey -pubin -in "$key" -noout </dev/null >/dev/null 2>&1; then
  unknown "$(shown "$1") is no public key in PEM form that this openssl reads: the signature was not checked"
else
  fingerprint=$(openssl pkey -pubin -in "$key" -outform DER </dev/null 2>/dev/null | sha256sum)
  fingerprint=\${fingerprint%% *}
  case $fingerprint in
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)
      unknown "this openssl can't write out the key"
      end
      ;;
  esac
  printf '         the key you gave has the fingerprint %s\\n' "$fingerprint"
  # Between the two names in the list stands one blank, not two.
  case $found in
    *' SHA256SUMS SHA256SUMS.sig '*)
      size=$(wc -c <"$folder/SHA256SUMS.sig")
      said=$(openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$folder/SHA256SUMS" \\
        -sigfile "$folder/SHA256SUMS.sig" 2>&1 </dev/null)
      code=$?
      # Older versions know no -rawin and end with the same code as for a wrong signature: only the words differ.
      case $code:$said in
        0:*'Signature Verified Successfully'*)
          if [ "$size" -eq 64 ]; then
            ok 'SHA256SUMS.sig is a signature of SHA256SUMS by that key'
          else
            broken "SHA256SUMS.sig: has $((size)) bytes and not 64"
          fi
          ;;
        *'Signature Verification Failure'*)
          broken 'SHA256SUMS.sig: is no signature of this SHA256SUMS by the key you gave'
          ;;
        *)
          version=$(openssl version 2>/dev/null | head -n 1)
          unknown "this openssl ($(shown "$version")) can't check Ed25519 signatures of files; 3.0 and later can"
          ;;
      esac
      ;;
  esac
fi

# ---- the manifest: its own list of facts, its key, its day

case $found in
  *' manifest.json '*)
    { manifest=$(head -c 1048576 <"$folder/manifest.json"); } 2>/dev/null
    if [ "$readable" = yes ]; then
      case $manifest in
        *'"files":{'"\${facts%,}"'},"final":'*) ok 'manifest.json names every fact with the digest it has' ;;
        *) broken 'manifest.json: its list of facts is not what lies in the folder' ;;
      esac
    fi
    case $manifest in
      '{"as_of":"'*'"type":"tms-manifest-v1","verdict":"'*'"}') ;;
      *) broken 'manifest.json: is no manifest of a kind that this script knows (tms-manifest-v1)' ;;
    esac
    # The first "day": is the manifest's own: "previous" comes later, and inside a JSON text quotes are escaped.
    says=\${manifest#*'"day":"'}
    says=\${says%%'"'*}
    if [ "$says" = "$day" ]; then
      ok "the folder has the name of the manifest's day, $(shown "$day")"
    else
      broken "the folder is named $(shown "$day") and manifest.json is of the day $(shown "$says")"
    fi
    if [ -n "$fingerprint" ]; then
      case $manifest in
        *'"key":"'"$fingerprint"'","ledger":'*) ok 'manifest.json names the key you gave' ;;
        *)
          says=\${manifest#*'"key":"'}
          says=\${says%%'"'*}
          broken "manifest.json: names another key: signed by $(shown "$says"), you gave $fingerprint"
          other_key=yes
          ;;
      esac
    fi
    if [ "$problems" -eq 0 ] && [ "$unknowns" -eq 0 ]; then
      says=\${manifest##*'"verdict":"'}
      printf '         it says that the day was %s\\n' "$(shown "\${says%'"}'}")"
      case $manifest in
        *'},"final":true,"key":'*) ;;
        *) printf '         it is PROVISIONAL: the day was not over, a later revision replaces it\\n' ;;
      esac
    fi
    ;;
esac

if [ "$other_key" = yes ]; then
  printf '\\n'
  printf '%s\\n' \\
    'Keys that were replaced are not followed here. Whether yours took over from that key, or that key from yours, says' \\
    '  tms evidence verify <folder> --key <the key you gave>' \\
    'Or give this script the key of that day, from somewhere you trust. A key that neither knows is a stranger.'
fi

case $0 in
  */*) own=\${0%/*}/ ;;
  *) own=. ;;
esac
own=$(cd "$own" 2>/dev/null && pwd -P && printf x) || own=
if [ "$own" = "$where\${nl}x" ]; then
  printf '         note: this VERIFY.sh lies in the pack it checks; a copy from elsewhere proves more\\n'
fi
end
`
