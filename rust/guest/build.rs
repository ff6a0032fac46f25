// SPDX-License-Identifier: GPL-2.0-only
//! Links the guest as a position-independent image.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rustc-link-arg=-T{here}/link.ld");
    for option in ["-pie", "--no-dynamic-linker", "-znorelro", "-znotext", "-zmax-page-size=4096"] {
        println!("cargo:rustc-link-arg={option}");
    }
}
