# What a shell forks for: substitutions, subshells, pipelines, here-documents, background jobs, and errors in these.
number() {
  i=0
  while [ $i -lt "$1" ]; do
    echo $i
    i=$((i + 1))
  done
}
add() {
  sum=0
  while read -r line; do sum=$((sum + line)); done
  echo "$sum"
}
copy() { while read -r line; do echo "$line"; done; }

echo "substitution: $(echo one; echo "$(echo two; echo "$(echo three)")")"
big=$(number 3000); echo "long substitution: ${#big} characters"
x=1; (x=2; (x=3; (x=4; echo "subshell $x"); echo "subshell $x"); echo "subshell $x"); echo "subshell $x"
number 200 | while read -r n; do case $n in *7*) echo $n ;; esac; done | copy | add
echo a | (read -r v; echo "$v" | (read -r w; echo "$w" | (read -r z; echo "pipeline in pipeline: $z")))
copy <<END | while read -r line; do echo "[$line]"; done
here $x
document $(echo of two lines)
END
{ echo to 1; echo to 2 >&2; } 2>&1 | copy
exec 5>&1; (echo to 5 >&5); exec 5>&-

jobs=
for i in 1 2 3 4 5; do
  (exit $i) &
  jobs="$jobs $!"
done
for job in $jobs; do
  wait "$job"
  echo "a job ended with $?"
done

(set -e; false; echo not reached); echo "status $?"
(: "${undefined?is not set}") 2>/dev/null; echo "status $?"
(trap 'echo trap of a subshell' EXIT; exit 3); echo "status $?"
(missing_command) 2>/dev/null; echo "status $?"
(eval 'syntax (error') 2>/dev/null; echo "status $?"
! (exit 1); echo "status $?"
true && (echo and) || (echo not reached); false || (echo or)
unset nothing; (: "${nothing:=assigned}"; echo "$nothing"); echo "[$nothing]"
set -- one two three; echo "$(shift; echo "$*"), $*"
eval 'echo $(eval "echo \$(echo evaluated)")'
trap 'echo "trap: $(echo last)"' EXIT
