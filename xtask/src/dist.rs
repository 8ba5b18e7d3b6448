//! `cargo xtask dist`: the `job` binary that we ship.
//!
//! It is linked statically, so that one file runs on every distribution, in containers without a
//! libc, and starts without a dynamic loader.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::{self, Args};
use crate::cargo::Workspace;
use crate::trouble::Trouble;

const HELP: &str = "\
Builds the static, stripped `job` binary that we ship, as target/dist/job.

Usage: cargo xtask dist
";

pub(crate) fn main(mut args: Args) -> Result<ExitCode, Trouble> {
    match args.option()?.as_deref() {
        None => {}
        Some("-h" | "--help") => return args::help(HELP),
        Some(other) => return Err(args::unknown("dist", other)),
    }
    let shipped = build(&Workspace::load()?)?;
    let size = fs::metadata(&shipped).map_err(Trouble::io(shipped.display()))?.len();
    println!("{}  {} KiB, static", shipped.display(), size.div_ceil(1024));
    Ok(ExitCode::SUCCESS)
}

/// Builds it; tells where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Trouble> {
    let dist = workspace.target.join("dist");
    let mut cargo =
        workspace.cargo(["build", "--release", "--locked", "--package=jobobject-cli", "--bin=job"]);
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    let built = workspace.build_static(cargo, &dist.join("build"))?;
    let job = built.iter().find(|executable| executable.name == "job");
    let job = job.ok_or_else(|| Trouble::failed("the build made no `job`"))?;

    let (new, shipped) = (dist.join("job.new"), dist.join("job"));
    // Renamed over the old one, not written over it: that may be running, and then is locked.
    fs::copy(&job.path, &new).map_err(Trouble::io(new.display()))?;
    fs::rename(&new, &shipped).map_err(Trouble::io(shipped.display()))?;
    Ok(shipped)
}
