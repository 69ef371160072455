// A program that forks below main, to be compiled with debug info.
__attribute__((import_module("kernel"), import_name("kernel_fork"))) int kernel_fork(void);

__attribute__((noinline)) static int deep(int x) {
  int kept = x * 3;
  int pid = kernel_fork();
  return pid + kept;
}

int main(int argc, char **argv) {
  (void)argv;
  return deep(argc);
}
