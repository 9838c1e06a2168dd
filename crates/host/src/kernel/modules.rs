//! Which modules of a kernel the ramdisk needs, and in which order to load them.
//!
//! The kernel's package carries no `modules.dep` (the installer makes it), so
//! dependencies are read from each module's own `depends=` line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A module in the order of loading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Resolves `wanted` below `root` (`…/lib/modules/<version>`): dependencies first, each once.
/// A name that is neither a module nor built in is an error if it is `required`.
pub(super) fn resolve(root: &Path, required: &[&str], wished: &[&str]) -> io::Result<Vec<Module>> {
    let files = index(root)?;
    let builtin: BTreeSet<String> = fs::read_to_string(root.join("modules.builtin"))?
        .lines()
        .filter_map(|line| module_name(Path::new(line)))
        .collect();
    for name in required {
        if !files.contains_key(*name) && !builtin.contains(*name) {
            return Err(io::Error::other(format!("the kernel has no driver {name}")));
        }
    }
    let mut order = Order {
        files: &files,
        done: BTreeSet::new(),
        modules: vec![],
    };
    for name in required.iter().chain(wished) {
        order.visit(name, 0)?;
    }
    Ok(order.modules)
}

/// Bytes of a module, uncompressed.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let tool = match path.extension().and_then(|it| it.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        Some(_) | None => return fs::read(path),
    };
    let output = std::process::Command::new(tool)
        .arg("-dc")
        .arg(path)
        .output()
        .map_err(|cause| io::Error::other(format!("running {tool}: {cause}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("{tool} -dc: {said}")))
    }
}

/// No chain of dependencies among kernel modules is nearly as long.
const DEPTH_MAX: usize = 32;

struct Order<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    done: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn visit(&mut self, name: &str, depth: usize) -> io::Result<()> {
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!(
                "the dependencies of {name} run in a circle"
            )));
        }
        if self.done.contains(name) {
            return Ok(());
        }
        let mut needs = dependencies(&read(path)?);
        // `virtio` lists nothing, yet its users name both in any order: a fixed order is kept by
        // sorting, and each module's own list puts what it needs before it.
        needs.sort();
        for need in needs {
            self.visit(&need, depth + 1)?;
        }
        self.done.insert(name.to_owned());
        self.modules.push(Module {
            name: name.to_owned(),
            path: path.clone(),
        });
        Ok(())
    }
}

/// The names in `depends=…`, normalised.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|it| it == KEY) else {
        return vec![];
    };
    let value = &module[start + KEY.len()..];
    let end = value.iter().position(|it| *it == 0).unwrap_or(0);
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn index(root: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.join("kernel")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if let Some(name) = module_name(&entry.path()) {
                files.insert(name, entry.path());
            }
        }
    }
    Ok(files)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("kernel/drivers")).unwrap();
        fs::write(
            root.path().join("modules.builtin"),
            "kernel/fs/ext4/ext4.ko\n",
        )
        .unwrap();
        for (name, depends) in modules {
            let bytes = format!("ELF\0license=GPL\0depends={depends}\0name=x\0");
            fs::write(root.path().join(format!("kernel/drivers/{name}.ko")), bytes).unwrap();
        }
        root
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let root = kernel(&[
            ("virtio_ring", ""),
            ("virtio", "virtio_ring"),
            ("virtio-rng", "virtio,virtio_ring"),
            ("sd_mod", "scsi_mod"),
            ("scsi_mod", ""),
        ]);
        let modules = resolve(root.path(), &["virtio_rng", "ext4"], &["sd_mod", "absent"]).unwrap();
        let names: Vec<_> = modules.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            names,
            ["virtio_ring", "virtio", "virtio_rng", "scsi_mod", "sd_mod"]
        );
        assert!(resolve(root.path(), &["absent"], &[]).is_err());
    }

    #[test]
    fn a_circle_is_refused() {
        let root = kernel(&[("a", "b"), ("b", "a")]);
        assert!(resolve(root.path(), &["a"], &[]).is_err());
    }
}
