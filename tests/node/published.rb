$stdout.sync = true
puts RUBY_VERSION
def fib(n) = n < 2 ? n : fib(n-1) + fib(n-2)
puts fib(15)
p (1..5).map { |x| puts x; x * x }
h = Hash.new { |hh, k| puts "miss #{k}"; hh[k] = k.to_s * 2 }
5.times { |i| h[i % 3] }
puts h.inspect
begin
  [3, 1, 2].sort_by { |x| puts "key #{x}"; raise ArgumentError, "x" if x == 2; -x }
rescue ArgumentError => e
  puts "rescued #{e.message} #{e.backtrace.size}"
ensure
  puts "ensure"
end
r = catch(:done) { 10.times { |i| puts i; throw :done, i if i == 4 }; :never }
puts r
puts "hello world foo".gsub(/o+/) { |m| puts "m #{m}"; m.upcase }
class P; include Comparable; attr_reader :v; def initialize(v) = @v = v; def <=>(o) = (puts("cmp #{v} #{o.v}"); v <=> o.v); def to_s = "P#{v}"; def hash = (puts("hash"); v.hash); def eql?(o) = (puts("eql"); v == o.v); end
puts [5, 3, 9, 1, 7].map { P.new(_1) }.sort.join(",")
puts [P.new(1), P.new(1), P.new(2)].uniq.size
e = Enumerator.new { |y| 3.times { |i| puts "gen #{i}"; y << i } }
p e.to_a
f = Fiber.new { |x| puts "in #{x}"; y = Fiber.yield(x + 1); puts "again #{y}"; :end }
begin
  p f.resume(1); p f.resume(2)
rescue FiberError, NotImplementedError => e
  puts "fiber: #{e.class}"
end
puts format("%08.3f %x %s", 3.14159, 255, :sym)
puts (1..Float::INFINITY).lazy.map { |x| x * 2 }.select { |x| puts "l#{x}"; x % 3 == 0 }.first(3).inspect
s = Struct.new(:a, :b) { def inspect = (puts("insp"); "S(#{a},#{b})") }
p [s.new(1, 2), s.new(3, 4)]
puts 2**200
puts "%s" % [[1, [2, [3]]].flatten]
x = [1, 2, 3].each_slice(2).with_index.map { |a, i| puts "#{a} #{i}"; a.sum * i }
p x
def m; yield 1; ensure puts "m ensure"; end
p (m { |q| break q + 10 })
p [1, 2, 3].inject { |a, b| puts "inj #{a} #{b}"; a + b }
ObjectSpace.garbage_collect
puts "abc".each_char.map { |c| puts c; c.ord }.inspect
at = Object.new; def at.method_missing(n, *a) = (puts("mm #{n}"); a.sum); def at.respond_to_missing?(*) = true
p at.foo(1, 2, 3)
puts [0.1 + 0.2, 1e100, -0.0, 1/3r, Complex(1, 2)].inspect
puts "done"
