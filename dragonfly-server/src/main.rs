//! `dragonfly`: the server and its command line.

use std::process::ExitCode;

/// What one thread reads from the store, another keeps and frees: with glibc's allocator a start, and memory after it,
/// cost a third more.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    dragonfly_server::cli::main()
}
