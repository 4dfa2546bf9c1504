//! Has cargo compile the service again when a migration is added: the macro that embeds them is not seen to
//! depend on the folder.
#![allow(clippy::print_stdout)] // Build scripts talk to cargo that way.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
