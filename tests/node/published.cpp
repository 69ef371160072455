template <typename T, int N> struct Arr { T d[N]; constexpr T sum() const { T s{}; for (auto x : d) s += x; return s; } };
template <typename... Ts> constexpr auto add(Ts... ts) { return (ts + ...); }
struct B { virtual int f() { return 1; } virtual ~B() {} }; struct D : B { int x; int f() override { return x + add(1, 2, 3); } };
int run(B *b) { Arr<int, 4> a{{1, 2, 3, 4}}; auto l = [&](auto y) { return y + a.sum(); }; try { if (b->f() > 3) throw 1; } catch (int e) { return e; } return l(4) + l(2.5); }
