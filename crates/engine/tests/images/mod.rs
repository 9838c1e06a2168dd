//! Bytes of images: stored, recorded, removed; and what the operator is told of leftovers.

use std::io::{Seek, Write};
use std::sync::Arc;

use cumulet_domain::images::{BootKind, Preparation};
use cumulet_domain::{Error, InstanceId};
use cumulet_engine::image_bytes::ImportImage;
use cumulet_host::api::{Boot, DiskSpec, FileFormat, ImageSource, Layout, Mac, VmSpec};

use crate::common::{Cloud, account};

fn file(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("its bytes");
    file.rewind().expect("its start");
    file
}

fn import(name: &str, content: &[u8]) -> ImportImage {
    ImportImage {
        owner: account(1),
        name: name.into(),
        is_public: false,
        file: file(content),
        format: FileFormat::Raw,
        kind: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_keeps_its_bytes_and_a_refused_one_leaves_none() {
    let cloud = Cloud::in_memory().await;
    let disks = cloud.engine.host().disks.clone();
    let stored = cloud.engine.import_image(import("one", b"one")).await;
    let Preparation::Ready { digest, .. } = stored.expect("an image").preparation else {
        panic!("an imported image is ready");
    };
    assert_eq!(disks.images().await.expect("images"), [digest]);
    assert_eq!(disks.unrecorded_images().await.expect("images"), []);
    // The name is taken: nothing is left of other bytes, and those that an image has stay.
    for content in [&b"two"[..], b"one"] {
        let refused = cloud.engine.import_image(import("one", content)).await;
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })));
    }
    let wrong = ImportImage {
        kind: Some(BootKind::Disk),
        ..import("three", b"three")
    };
    let refused = cloud.engine.import_image(wrong).await;
    assert!(matches!(refused, Err(Error::InvalidValue { .. })));
    assert_eq!(disks.images().await.expect("images"), [digest]);
    assert_eq!(disks.unrecorded_images().await.expect("images"), []);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_every_sort_are_told_and_stay() {
    let cloud = Cloud::in_memory().await;
    let host = cloud.engine.host().clone();
    let source = ImageSource::File {
        file: file(b"nobody's"),
        format: FileFormat::Raw,
    };
    let stored = host.disks.store_image(source, 1 << 20, Arc::new(|_| {}));
    let digest = stored.await.expect("stored").digest;
    assert_eq!(
        cloud.engine.orphans().await.expect("orphans"),
        Vec::<String>::new(),
        "just stored, it is about to be recorded"
    );
    // As if its record had been lost.
    let recorded = host.disks.mark_image_recorded(digest);
    recorded.await.expect("the mark goes");
    let id = InstanceId::from_random(77);
    let spec = DiskSpec {
        instance: id,
        image: digest,
        layout: Layout::Whole { size_mib: 1 },
    };
    host.disks.ensure_disk(&spec).await.expect("a disk");
    let spec = VmSpec {
        instance: id,
        uid: 1,
        vcpus: 1,
        memory_mib: 1,
        machine: "simulated".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        disk: spec,
        boot: Boot::Firmware,
    };
    let tap = host.network.open_tap(id).await.expect("a tap");
    host.vms
        .ensure_started(&spec, tap)
        .await
        .expect("a machine");
    let told = [
        format!("virtual machine of {id}"),
        format!("disk of {id}"),
        format!("console of {id}"),
        format!("image {digest}"),
    ];
    assert_eq!(cloud.engine.orphans().await.expect("orphans"), told);
    cloud.stop().await;
}
