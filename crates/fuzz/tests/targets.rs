//! Every target for half a minute, two at a time.

use std::process::{Command, Output};
use std::sync::Mutex;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cumulet-fuzz");
/// Of each target.
const SECONDS: usize = 30;
const AT_A_TIME: usize = 2;

fn targets() -> Vec<String> {
    let output = Command::new(PROGRAM).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn run(target: &str, seconds: usize) -> Output {
    let seconds = seconds.to_string();
    let mut command = Command::new(PROGRAM);
    command.args([target, &seconds]).output().unwrap()
}

#[test]
fn no_parser_of_outside_bytes_panics_hangs_or_grows() {
    let left = targets();
    assert!(left.len() > 10, "{left:?}");
    let left = Mutex::new(left);
    let failed = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(target) = { left.lock().unwrap().pop() } {
                    let output = run(&target, SECONDS);
                    let text = String::from_utf8_lossy(&output.stdout).into_owned()
                        + &String::from_utf8_lossy(&output.stderr);
                    println!("{text}");
                    if !output.status.success() {
                        failed.lock().unwrap().push(format!("{target}: {text}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What finds nothing may look at nothing: the harness itself is tried on a target that fails.
#[test]
fn a_parser_that_panics_hangs_or_grows_is_found() {
    for (word, said) in [
        ("panic", "panicked"),
        ("hang", "takes longer than"),
        ("grow", "of memory"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("input");
        std::fs::write(&input, word).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["self-test", "--replay"]).arg(&input);
        let output = command.env("FUZZ_DIR", directory.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{word}");
        assert!(text.contains(said), "{word}: {text}");
        let mut kept = std::fs::read_dir(directory.path().join("failures")).unwrap();
        let kept = kept.next().unwrap().unwrap().path();
        assert_eq!(std::fs::read(kept).unwrap(), word.as_bytes());
    }
}

/// Documents that are small and would be large, or deep, or slow, if they were believed.
#[test]
fn bombs_at_the_s3_door_end_within_the_watchdogs_bounds() {
    let entities: String = (1..30)
        .map(|it| {
            format!(
                "<!ENTITY a{it} \"{}\">",
                format!("&a{};", it - 1).repeat(10)
            )
        })
        .collect();
    let attributes: String = (0..20_000).map(|it| format!(" a{it}=\"\"")).collect();
    let grant = "<Grant><Grantee><ID>x</ID></Grantee><Permission>READ</Permission></Grant>";
    let bombs = [
        format!(
            "delete\n<!doctype x [<!ENTITY a0 \"a\">{entities}]><Delete><Object><Key>&a29;</Key></Object></Delete>"
        ),
        format!(
            "delete\n<Delete>{}{}</Delete>",
            "<a>".repeat(80_000),
            "</a>".repeat(80_000)
        ),
        format!("delete\n{}", "<Delete>".repeat(60_000)),
        format!(
            "lifecycle\n<LifecycleConfiguration>{}",
            "<Rule>".repeat(60_000)
        ),
        format!("delete\n<Delete{attributes}><Object><Key>a</Key></Object></Delete>"),
        format!(
            "delete\n<Delete>{}</Delete>",
            "<Object><Key>a</Key></Object>".repeat(20_000)
        ),
        format!(
            "complete\n<CompleteMultipartUpload>{}</CompleteMultipartUpload>",
            "<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>".repeat(20_000)
        ),
        format!(
            "acl\n<AccessControlPolicy><AccessControlList>{}",
            grant.repeat(10_000)
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input");
    for bomb in bombs {
        std::fs::write(&input, &bomb).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["s3-xml", "--replay"]).arg(&input);
        let output = command.env("FUZZ_DIR", directory.path()).output().unwrap();
        let shown: String = bomb.chars().take(60).collect();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}: {text}");
    }
}
