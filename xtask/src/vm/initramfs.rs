//! The guest's file system, as an archive that the kernel unpacks at boot.
//!
//! Written here rather than by cpio, so that everything in it belongs to root whoever builds it, and
//! not compressed: the emulator copies it into the guest at once, while decompressing it would be
//! done by the emulated processor.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst ("newc").

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// The files of a guest, by absolute path; a path's parents are there without being named. The
/// order of the map puts a folder before what is in it, as the kernel needs it.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    nodes: BTreeMap<PathBuf, Node>,
}

#[derive(Debug)]
enum Node {
    Folder { mode: u32 },
    Text { mode: u32, text: String },
    Copy { mode: u32, of: PathBuf },
    Link { to: PathBuf },
}

impl Initramfs {
    pub(crate) fn folder(&mut self, path: impl AsRef<Path>, mode: u32) {
        self.insert(path.as_ref(), Node::Folder { mode });
    }

    pub(crate) fn text(&mut self, path: impl AsRef<Path>, mode: u32, text: impl Into<String>) {
        self.insert(path.as_ref(), Node::Text { mode, text: text.into() });
    }

    pub(crate) fn program(&mut self, path: impl AsRef<Path>, of: impl Into<PathBuf>) {
        self.insert(path.as_ref(), Node::Copy { mode: 0o755, of: of.into() });
    }

    pub(crate) fn link(&mut self, path: impl AsRef<Path>, to: impl Into<PathBuf>) {
        self.insert(path.as_ref(), Node::Link { to: to.into() });
    }

    /// A folder of this machine, at the same path, without what is hidden or built.
    pub(crate) fn tree(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            let name = path.file_name().unwrap_or_default();
            if name == "target" || name.to_string_lossy().starts_with('.') {
                continue;
            }
            match entry? {
                kind if kind.is_dir() => self.tree(&path)?,
                kind if kind.is_file() => {
                    self.insert(&path, Node::Copy { mode: 0o644, of: path.clone() })
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &Path, node: Node) {
        for parent in path.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.nodes.entry(parent.to_owned()).or_insert(Node::Folder { mode: 0o755 });
        }
        self.nodes.insert(path.to_owned(), node);
    }

    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let mut archive = Archive { out: BufWriter::new(File::create(file)?), entries: 0 };
        for (path, node) in &self.nodes {
            let name = path.strip_prefix("/").unwrap_or(path);
            node.content()
                .and_then(|(mode, content)| archive.entry(name, mode, &content))
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
        }
        archive.entry(Path::new("TRAILER!!!"), 0, &[])?;
        archive.out.flush()
    }
}

impl Node {
    fn content(&self) -> io::Result<(u32, Vec<u8>)> {
        Ok(match self {
            Self::Folder { mode } => (DIRECTORY | mode, Vec::new()),
            Self::Text { mode, text } => (REGULAR | mode, text.clone().into_bytes()),
            Self::Copy { mode, of } => (REGULAR | mode, fs::read(of)?),
            Self::Link { to } => (SYMLINK | 0o777, to.as_os_str().as_encoded_bytes().to_owned()),
        })
    }
}

struct Archive<W> {
    out: W,
    entries: usize,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        const HEADER: usize = 110;
        let name = name.as_os_str().as_encoded_bytes();
        self.entries += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other("too large for the archive"))?;
        // Inode, mode, uid, gid, links, time, size, the device's two halves, those of the node, the
        // length of the name with its NUL, and a checksum that this format leaves at zero.
        let fields =
            [self.entries, mode as usize, 0, 0, 1, 0, size as usize, 0, 0, 0, 0, name.len() + 1, 0];
        self.out.write_all(b"070701")?;
        fields.iter().try_for_each(|field| write!(self.out, "{field:08x}"))?;
        self.out.write_all(name)?;
        self.out.write_all(b"\0")?;
        self.pad(HEADER + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Names and contents both begin at multiples of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_a_content_each_padded_to_four() {
        let mut archive = Archive { out: Vec::new(), entries: 0 };
        archive.entry(Path::new("a/b"), REGULAR | 0o644, b"hello").unwrap();
        let header = "07070100000001000081a4000000000000000000000001000000000000000500000000000000000000000000000000\
                      0000000400000000";
        assert_eq!(archive.out, [header.as_bytes(), b"a/b\0\0\0hello\0\0\0"].concat());
    }

    #[test]
    fn parents_come_first_and_keep_the_mode_that_they_were_given() {
        let mut root = Initramfs::default();
        root.text("/tmp/x/y", 0o644, "");
        root.folder("/tmp", 0o1777);
        root.link("/tmp/z", "x");
        let paths = root.nodes.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(paths, ["/tmp", "/tmp/x", "/tmp/x/y", "/tmp/z"]);
        assert!(matches!(root.nodes[Path::new("/tmp")], Node::Folder { mode: 0o1777 }));
    }
}
