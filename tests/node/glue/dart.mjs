// Dart's formatter, compiled to garbage-collected types and modern exceptions.
//
// usage: node dart.mjs FOLDER

const { format } = await import(`${process.argv[2]}/dart_fmt_node.js`);
const sources = [
  'void main(){print("hi");for(var i=0;i<10;i++){if(i%2==0)continue;else print(i);}}',
  'class A<T extends B>extends C with D,E implements F{final int x;A({required this.x,super.key});Future<void>f()' +
    'async{await g(1,2,3,(a){return a*2;},named:[for(final q in w)if(q!=null)...q,]);' +
    'switch(x){case 1:return;default:throw "x";}}}',
  'enum E{a,b,c;int get v=>index;} extension on String{bool get e=>isEmpty;}',
  'void main( {',
];
for (const source of sources) {
  for (const line_width of [80, 40]) {
    try {
      console.log(format(source, 'main.dart', { line_width }));
    } catch (error) {
      console.log('error', error.message ?? error);
    }
  }
}
console.log('done');
