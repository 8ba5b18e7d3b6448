//! What a machine needs before it can boot another: an emulator, kernels, and a busybox.
//!
//! The kernels are Debian's cloud kernels, as the archive has them now. They are found through the
//! packages that always name the current one, and kept by version, so that they are downloaded only
//! when the archive has moved on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::apt;
use crate::cargo;
use crate::trouble::Trouble;

const EMULATOR: &str = "qemu-system-x86_64";

/// A line of kernel releases, such as 6.12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series(String);

/// A kernel ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub series: Series,
    pub image: PathBuf,
}

impl FromStr for Series {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self, Trouble> {
        let numeric =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let valid =
            text.split_once('.').is_some_and(|(major, minor)| numeric(major) && numeric(minor));
        valid
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| Trouble::usage(format!("`{text}` is no kernel series like 6.12")))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The emulator's path.
pub(crate) fn emulator() -> Result<PathBuf, Trouble> {
    if cfg!(not(target_arch = "x86_64")) {
        let reason = "the virtual machines run this machine's own binaries, and are x86-64 only";
        return Err(Trouble::unavailable(reason, "run it on an x86-64 machine"));
    }
    apt::ensure_program(EMULATOR, "qemu-system-x86")
}

/// A static busybox: the machine's own, or one out of Debian's package, which is not installed,
/// since on many machines it would replace another busybox.
pub(crate) fn busybox(cache: &Path) -> Result<PathBuf, Trouble> {
    let kept = cache.join("busybox");
    let candidates = [apt::program("busybox"), Some(kept.clone())];
    if let Some(found) = candidates.into_iter().flatten().find(|file| cargo::is_static(file)) {
        return Ok(found);
    }
    let fetch = || apt::extract("busybox-static", "*/bin/busybox", &kept);
    fetch().or_else(|_| apt::update().and_then(|()| fetch())).map_err(|why| {
        Trouble::unavailable(
            format!("no static busybox: {why}"),
            "sudo apt-get update && sudo apt-get install busybox-static",
        )
    })?;
    Ok(kept)
}

/// The current kernel of a series; an older one of it when the archive cannot be asked.
pub(crate) fn kernel(series: &Series, cache: &Path) -> Result<Kernel, Trouble> {
    let found = current(series, cache).or_else(|first| {
        // Lists can be missing, or name what the archive has replaced since.
        apt::update()
            .and_then(|()| current(series, cache))
            .map_err(|second| if first == second { first } else { format!("{first}\n{second}") })
    });
    let image = found.or_else(|why| kept(series, cache).ok_or(why)).map_err(|why| {
        let fix = "sudo apt-get update, on a Debian whose archive has that kernel";
        Trouble::unavailable(format!("no {series} kernel: {why}"), fix)
    })?;
    Ok(Kernel { series: series.clone(), image })
}

/// Where kernels are kept between runs: with the user, so that a fresh clone finds them again.
pub(crate) fn cache(target: &Path) -> Result<PathBuf, Trouble> {
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let wanted = user
        .map(|user| user.join("jobobject-vm"))
        .filter(|folder| fs::create_dir_all(folder).is_ok());
    let folder = wanted.unwrap_or_else(|| target.join("vm-cache"));
    fs::create_dir_all(&folder).map_err(Trouble::io(folder.display()))?;
    Ok(folder)
}

fn current(series: &Series, cache: &Path) -> Result<PathBuf, String> {
    let package = package(series).ok_or_else(|| format!("apt knows no cloud kernel {series}"))?;
    let image = cache.join(image_name(&package));
    if !image.exists() {
        apt::extract(&package, "./boot/vmlinuz-*", &image)?;
    }
    Ok(image)
}

/// The package that holds the image. A release's own series has a nameless metapackage.
fn package(series: &Series) -> Option<String> {
    let named = format!("linux-image-{series}-cloud-amd64");
    let metapackages = [named.as_str(), "linux-image-cloud-amd64"];
    let prefix = format!("linux-image-{series}.");
    metapackages
        .iter()
        .flat_map(|name| apt::depends(name))
        .find(|package| package.starts_with(&prefix))
}

fn image_name(package: &str) -> String {
    package.replace("linux-image-", "vmlinuz-")
}

/// The image of a series that was downloaded last.
fn kept(series: &Series, cache: &Path) -> Option<PathBuf> {
    let prefix = format!("vmlinuz-{series}.");
    let of_series = |path: &PathBuf| {
        path.is_file()
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    let images = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path()).filter(of_series);
    images.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!("6.12".parse::<Series>().unwrap().to_string(), "6.12");
        for text in ["", "6", "6.", "6.12.1", "six.one", "6.1;x"] {
            assert!(text.parse::<Series>().is_err(), "{text}");
        }
    }
}
