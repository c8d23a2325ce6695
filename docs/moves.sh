#!/usr/bin/env bash
# Prints docs/moves-from-812cb95.md: where files of that commit are now, and what was renamed (from docs/renames.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
echo '# Moves since 812cb95'
echo
echo 'Made by `docs/moves.sh`. Reviews of that commit name the paths and names on the left.'
echo
echo '## Files'
echo
echo '| then | now |'
echo '|---|---|'
git diff --find-renames=30% -l 100000 --diff-filter=R --name-status 812cb95 HEAD -- '*.rs' '*.sql' '*.md' |
  awk -F'\t' '{ print "| `" $2 "` | `" $3 "` |" }'
echo
echo '## Types, functions and fields'
echo
echo '| then | now | in |'
echo '|---|---|---|'
awk -F'\t' '!/^#/ && NF == 3 { print "| `" $1 "` | `" $2 "` | " $3 " |" }' docs/renames.txt
