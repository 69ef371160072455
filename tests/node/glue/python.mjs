// CPython as Pyodide publishes it: recursion, sorting with callbacks, generators, exceptions, files, and calls to and
// from JavaScript.
//
// usage: node python.mjs FOLDER

const { loadPyodide } = await import(`${process.argv[2]}/pyodide.mjs`);
const python = await loadPyodide({ env: { PYTHONHASHSEED: '0', HOME: '/home' } });
python.runPython(`
import collections, decimal, fractions, hashlib, json, os, random, re, sys, traceback, zlib

def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

print(fibonacci(18))

class Item:
    def __init__(self, x):
        self.x = x
    def __lt__(self, other):
        os.stat('/')
        return self.x < other.x
    def __del__(self):
        if self.x == 579: print('gone', self.x)

source = random.Random(7)
print([item.x for item in sorted([Item(source.randrange(1000)) for _ in range(60)])])

def numbers():
    try:
        for i in range(5):
            print('yield', i)
            yield i
    finally:
        print('closed')

for x in numbers():
    if x == 3: break

try:
    {}['missing']
except KeyError:
    traceback.print_exc(file=sys.stdout)

def deep(n):
    try:
        if n == 0:
            os.stat('/')
            raise ValueError('deep')
        deep(n - 1)
    finally:
        if n % 50 == 0: print('leaving', n)

try:
    deep(300)
except ValueError as error:
    print(repr(error))

def swap(match):
    print('match', match.group(0))
    return match.group(2) + ' ' + match.group(1)

print(re.sub(r'(\\w+) (\\w+)', swap, 'one two three four'))
print(json.dumps(json.loads('{"a": [1, 2.5, null, true], "b": {"c": "x"}}'), sort_keys=True))
with open('/tmp/f', 'w') as file:
    for i in range(200):
        file.write(f'{i} {i * i}\\n')
        file.flush()
print(sum(int(line.split()[1]) for line in open('/tmp/f')))
print(decimal.Decimal(2).sqrt(), fractions.Fraction(3, 7) ** 5, collections.Counter('mississippi').most_common())
packed = zlib.compress(b'abc' * 1000)
print(len(packed), hashlib.sha256(packed).hexdigest())
try:
    exec('def f(:\\n pass')
except SyntaxError as error:
    print(error.msg, error.lineno)
`);
globalThis.callThrice = (callee) => [0, 1, 2].forEach((i) => console.log('JavaScript', callee(i)));
python.runPython(`
from js import callThrice
from pyodide.ffi import create_proxy

def callee(i):
    print('Python', i)
    return i * 10

callThrice(create_proxy(callee))
`);
try {
  python.runPython('1 / 0');
} catch (error) {
  console.log(error.message.trim().split('\n').at(-1));
}
console.log('done');
