//! The default kernel, built once and kept for later runs.

use std::path::{Path, PathBuf};

use cumulet_host::kernel::{KernelFiles, build_kernel};

/// The kernel and ramdisk of this source tree: the name of the cache holds what the ramdisk is
/// made of, so that a changed script is not tested in its old form.
pub(crate) fn built() -> KernelFiles {
    let directory = cache().join("kernel");
    std::fs::create_dir_all(&directory).expect("the build directory can be written");
    let stamp = directory.join("stamp");
    let wanted = source_stamp();
    let files = |version: String| KernelFiles {
        kernel: directory.join("vmlinuz"),
        ramdisk: directory.join("ramdisk"),
        version,
    };
    if let Ok(found) = std::fs::read_to_string(&stamp)
        && let Some((stamped, version)) = found.split_once('\n')
        && stamped == wanted
    {
        return files(version.to_owned());
    }
    let built = build_kernel(&directory, &|what| println!("  {what}")).expect("a kernel is built");
    std::fs::write(&stamp, format!("{wanted}\n{}", built.version)).expect("the stamp is written");
    built
}

fn cache() -> PathBuf {
    std::env::var_os("CUMULET_TEST_CACHE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("cumulet-test-cache"),
        PathBuf::from,
    )
}

fn source_stamp() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    include_str!("../../src/kernel/init.sh").hash(&mut hasher);
    include_str!("../../src/kernel/build.rs").hash(&mut hasher);
    include_str!("../../src/kernel/modules.rs").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
