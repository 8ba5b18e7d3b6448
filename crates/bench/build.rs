//! Builds the program that the measurements start: a tiny static one, with the compiler that builds the
//! rest. `crates/sys/build.rs` tells why each flag is there.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=child/main.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let image = Path::new(&variable("OUT_DIR")).join("only-exits");

    let mut command = Command::new(variable("RUSTC"));
    command.args(["--edition", "2024", "--crate-name", "only_exits", "--crate-type", "bin"]);
    command.args(["--target", &variable("TARGET"), "-C", "panic=abort", "-C", "opt-level=s"]);
    command.args(["-C", "strip=symbols", "-C", "relocation-model=static"]);
    command.args(["-C", "force-unwind-tables=no", "-C", "target-feature=+crt-static"]);
    for flag in ["-nostartfiles", "-nostdlib", "-static"] {
        command.arg("-C").arg(format!("link-arg={flag}"));
    }
    command.args(["-C", "link-arg=-Wl,--build-id=none,-z,norelro,-z,noseparate-code"]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    command.arg("-o").arg(&image).arg("child/main.rs");
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        command.env_remove(name);
    }
    let status =
        command.status().unwrap_or_else(|error| panic!("cannot run the compiler: {error}"));
    assert!(status.success(), "the child does not compile: {command:?}");
}
