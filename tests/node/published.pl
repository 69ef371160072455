$| = 1;
print "perl $]\n";
sub fib { my $n = shift; $n < 2 ? $n : fib($n-1) + fib($n-2) } print fib(12), "\n";
my %h = map { print "map $_\n"; ($_ => $_ ** 2) } 1..4; print join(",", map { "$_=$h{$_}" } sort keys %h), "\n";
print join(" ", sort { print "cmp $a $b\n"; $a <=> $b } 5, 3, 9, 1), "\n";
my $s = "hello world foo"; $s =~ s/(o+)/print "m $1\n"; uc $1/ge; print "$s\n";
eval { print "in eval\n"; die { code => 42 } }; print "died $@->{code}\n";
my @l = grep { print "grep $_\n"; $_ & 1 } 1..5; print "@l\n";
{ package Foo; sub new { my ($c, %a) = @_; bless { %a }, $c } sub DESTROY { print "destroy $_[0]{n}\n" } use overload '+' => sub { print "plus\n"; Foo->new(n => $_[0]{n} + (ref $_[1] ? $_[1]{n} : $_[1])) }, '""' => sub { print "str\n"; "Foo($_[0]{n})" }; }
{ my $f = Foo->new(n => 1) + Foo->new(n => 2); print "got $f\n"; }
my $it = do { my $i = 0; sub { print "it $i\n"; $i++ } }; $it->() for 1..3;
printf "%05.2f %s %x\n", 3.14159, "x" x 3, 255;
local $SIG{__WARN__} = sub { print "warn: $_[0]" }; warn "careful\n";
my $str = join '', map { chr(ord('a') + $_) } 0..9; print scalar reverse($str), "\n";
for my $w (qw(apple bob cat)) { next if $w =~ /^b/; print "$w: ", length $w, "\n" }
print "last: ", (sub { for (1..10) { print "l$_\n"; return $_ if $_ == 3 } })->(), "\n";
my $r = sprintf("%s", 1e15 + 0.5); print "$r\n"; print 2**64, " ", 7 / 3, " ", int(-3.7), " ", -7 % 3, "\n";
print "sprintf ", join("|", unpack("A2 n N", pack("A2 n N", "ab", 513, 99999))), "\n";
tie my $t, 'T'; { package T; sub TIESCALAR { bless [] } sub FETCH { print "fetch\n"; 7 } sub STORE { print "store $_[1]\n" } } $t = 5; print $t + 1, "\n";
"abc" =~ /(?<x>b)(?{ print "in regex\n" })/; print "$+{x}\n";
eval 'print "string eval\n"; sub dyn { print "dyn @_\n"; wantarray } print dyn(1,2) ? "list\n" : "scalar\n"'; print $@;
print "done\n"; 0;
