# Functions, loops and subshells within each other, so that a fork has a deep stack, and many of them.
fibonacci() {
  if [ "$1" -lt 2 ]; then
    echo "$1"
  else
    a=$(fibonacci $(($1 - 1)))
    b=$(fibonacci $(($1 - 2)))
    echo $((a + b))
  fi
}
descend() { if [ "$1" -gt 0 ]; then descend $(($1 - 1)) "$2$(echo .)"; else echo "$2"; fi; }
nest() { if [ "$1" -gt 0 ]; then (nest $(($1 - 1)); echo "level $1"); fi; }

echo "fibonacci: $(fibonacci 9)"
echo "a fork at each level: $(descend 60 '')"
nest 12
for i in 1 2 3; do
  for j in a b c; do
    case $i$j in
      *b) (if eval 'while :; do echo $(echo "$i$j"); break; done'; then echo found; fi) ;;
      *) echo "$(for k in x y; do { until echo "$(echo "$i$j$k")"; do :; done; }; done)" ;;
    esac
  done
done
n=0; while [ $n -lt 40 ]; do n=$(echo $((n + 1))); done; echo "one after the other: $n"
