//! Builds the guardian: a tiny static program, with the compiler that builds the rest.
//!
//! It goes to `OUT_DIR/job-guardian`, from where `src/guardian.rs` embeds it. No flag of the surrounding
//! build is passed on: the program has neither a C library nor start files to choose between.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    for file in ["main.rs", "layout.rs", "raw.rs", "watch.rs"] {
        println!("cargo::rerun-if-changed=guardian/{file}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let (rustc, target) = (variable("RUSTC"), variable("TARGET"));
    let image = Path::new(&variable("OUT_DIR")).join("job-guardian");

    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-name", "job_guardian", "--crate-type", "bin"]);
    command.args(["--target", &target, "-C", "panic=abort", "-C", "opt-level=s"]);
    command.args(["-C", "strip=symbols", "-C", "relocation-model=static"]);
    // No unwinding, no checks that could only panic: what goes wrong here has nobody to tell.
    command.args(["-C", "debug-assertions=off", "-C", "overflow-checks=off"]);
    command.args(["-C", "force-unwind-tables=no", "-C", "target-feature=+crt-static"]);
    for flag in ["-nostartfiles", "-nostdlib", "-static"] {
        command.arg("-C").arg(format!("link-arg={flag}"));
    }
    // One segment where possible: fewer pages to map and to keep.
    command.args(["-C", "link-arg=-Wl,--build-id=none,-z,norelro,-z,noseparate-code"]);
    if target.contains("musl") {
        // The start files that come with this target are not wanted either.
        command.args(["-C", "link-self-contained=no"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    command.arg("-o").arg(&image).arg("guardian/main.rs");
    // A wrapper or flags of the surrounding build must not reach this compiler by the environment.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        command.env_remove(name);
    }
    let status =
        command.status().unwrap_or_else(|error| panic!("cannot run the compiler: {error}"));
    assert!(status.success(), "the guardian does not compile: {command:?}");
}
