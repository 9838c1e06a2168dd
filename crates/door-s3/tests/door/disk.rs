//! A disk that is full: a small file system in memory that the test mounts itself.

use std::process::Command;

use crate::cloud::{HOST, ask, cloud_in};

const MIB: usize = 1024 * 1024;

/// Mounted until it is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mib: usize) -> Self {
        let at = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "cumulet-test"])
            .arg(at.path())
            .status();
        assert!(done.unwrap().success(), "mounting needs root");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the store of a failed test may still hold files.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let mounted = Mounted::new(96);
    let path = mounted.0.path();
    let cloud = cloud_in(path).with_bucket().await;
    let kept = vec![7; 4 * MIB];
    let put = cloud.signed(ask("PUT", "/bucket/kept", &kept)).await;
    assert_eq!(put.status, 200, "{}", put.body);
    let big = vec![8; 40 * MIB];
    for target in ["/bucket/kept", "/bucket/new"] {
        let refused = cloud.signed(ask("PUT", target, &big)).await;
        let found = (refused.status.as_u16(), refused.code());
        assert_eq!(found, (507, "InsufficientStorage"), "{}", refused.body);
        assert!(!refused.body.contains("tmp"), "{}", refused.body);
    }
    // Somebody else takes all the room: nothing is committed, all is still read.
    let filler = path.join("filler");
    let _ = std::fs::write(&filler, vec![0; 96 * MIB]);
    for (method, target) in [
        ("DELETE", "/bucket/kept"),
        ("PUT", "/bucket/new"),
        ("PUT", "/other-bucket"),
    ] {
        let refused = cloud.signed(ask(method, target, b"")).await;
        assert_eq!(refused.code(), "InsufficientStorage", "{method} {target}");
    }
    let found = cloud.signed(ask("GET", "/bucket/kept", b"")).await;
    assert_eq!((found.status.as_u16(), found.body.len()), (200, kept.len()));
    assert_eq!(std::fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    // With room again, everything goes on.
    std::fs::remove_file(&filler).unwrap();
    let deleted = cloud.signed(ask("DELETE", "/bucket/kept", b"")).await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    let put = cloud.signed(ask("PUT", "/bucket/new", b"room")).await;
    assert_eq!(put.status, 200, "{}", put.body);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_says_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let cloud = cloud_in(path).with_bucket().await;
    cloud.signed(ask("PUT", "/bucket/key", b"hello")).await;
    // A file where bodies are begun: every new one fails, whoever runs the test.
    std::fs::remove_dir(path.join("tmp")).unwrap();
    std::fs::write(path.join("tmp"), b"").unwrap();
    let refused = cloud.signed(ask("PUT", "/bucket/key", b"other")).await;
    let found = (refused.status.as_u16(), refused.code());
    assert_eq!(found, (503, "ServiceUnavailable"), "{}", refused.body);
    assert!(!refused.body.contains("tmp"), "{}", refused.body);
    assert_eq!(
        cloud.signed(ask("GET", "/bucket/key", b"")).await.body,
        "hello"
    );
    let anonymous = cloud.send("PUT", "/bucket/key", HOST, &[], b"x").await;
    assert_eq!(anonymous.code(), "AccessDenied");
    std::fs::remove_file(path.join("tmp")).unwrap();
    std::fs::create_dir(path.join("tmp")).unwrap();
    assert_eq!(
        cloud
            .signed(ask("PUT", "/bucket/key", b"other"))
            .await
            .status,
        200
    );
    assert_eq!(
        cloud.signed(ask("GET", "/bucket/key", b"")).await.body,
        "other"
    );
}
