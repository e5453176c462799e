//! The command line: what it is, that nothing can get into it, and that the real QEMU takes it.

mod cases;
mod hostile;
mod real;
mod running;
