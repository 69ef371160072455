# The tags that longjmp and C++ exceptions are thrown with. The compiler declares them; some object has to
# define them, and zig's libc does not.
	.tagtype __c_longjmp i32
	.globl __c_longjmp
__c_longjmp:
	.tagtype __cpp_exception i32
	.globl __cpp_exception
__cpp_exception:
