//! The agent as a whole: real QEMUs, a guard of their own, and a store in memory.

mod contact;
mod life;
mod place;
mod shared;
mod trouble;
