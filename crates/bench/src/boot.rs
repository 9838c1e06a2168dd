//! Real virtual machines, against QEMU started by hand with the same disk.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::wait_until;

use crate::Plan;
use crate::client::Connection;
use crate::process::cpu_with_children;
use crate::report::{Report, Value, median};

const AT_ONCE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at a console.
const POLL: Duration = Duration::from_millis(5);
/// Looks at a console that speaks already, in each turn: what they cost is not the launch's.
const POLLS: u32 = 100;
const MEMORY: &str = "512M";
/// As the program starts it; see `crates/host/src/vm/command.rs`.
const CPU: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand";
const KERNEL_WORDS: &str = "root=/dev/sda1 ro console=ttyS0,115200n8 vsyscall=emulate \
                            net.ifnames=0 biosdevname=0 no_timer_check";

/// What boots: a disk, and the kernel if it has none.
struct Guest {
    image: PathBuf,
    kind: &'static str,
    kernel: Option<(PathBuf, PathBuf)>,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let path = |name: &str| -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(
            std::env::var_os(name).with_context(|| format!("{name} is not set"))?,
        ))
    };
    let halting = Guest {
        image: path("BENCH_HALT_IMAGE")?,
        kind: "disk",
        kernel: None,
    };
    let booting = Guest {
        image: path("BENCH_MINI_IMAGE")?,
        kind: "rootfs",
        kernel: Some((path("BENCH_KERNEL")?, path("BENCH_RAMDISK")?)),
    };
    let mut cloud = Cloud::prepare(
        &plan.program,
        &[
            ("CUMULET_COMPUTE", "qemu"),
            ("CUMULET_INSTANCES_ACCELERATION", "tcg"),
            ("CUMULET_INSTANCES_MEMORY_MIB", "200000"),
            ("CUMULET_LIMITS_INSTANCES_PER_ACCOUNT", "100"),
        ],
    );
    let (kernel, ramdisk) = booting.kernel.as_ref().context("a kernel")?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    cloud.run(&[
        "kernel",
        "import",
        "--kernel",
        &text(kernel),
        "--ramdisk",
        &text(ramdisk),
    ]);
    for guest in [&halting, &booting] {
        cloud.run(&[
            "image",
            "import",
            &text(&guest.image),
            "--name",
            guest.kind,
            "--kind",
            guest.kind,
            "--format",
            "raw",
        ]);
    }
    cloud.restart();
    let mut connection = Connection::open(cloud.address())?;
    let images = connection.ec2("Action=DescribeImages&Owner.1=self")?;
    let named: Vec<(String, String)> = images
        .texts("name")
        .into_iter()
        .zip(images.texts("imageId"))
        .collect();
    for (guest, what) in [
        (&halting, "a disk's boot sector"),
        (&booting, "the cloud's kernel"),
    ] {
        let image = &named
            .iter()
            .find(|(name, _)| name == guest.kind)
            .context("an image")?
            .1;
        one(
            plan,
            report,
            (&cloud, &mut connection),
            (guest, image, what),
        )?;
    }
    let image = &named
        .iter()
        .find(|(name, _)| name == halting.kind)
        .context("an image")?
        .1;
    twenty(plan, report, &cloud, (&halting, image))
}

fn launch(connection: &mut Connection, image: &str) -> anyhow::Result<String> {
    let answer = connection.ec2(&format!(
        "Action=RunInstances&ImageId={image}&InstanceType=t2.nano&MinCount=1&MaxCount=1"
    ))?;
    answer.texts("instanceId").pop().context("an instance")
}

fn has_console(connection: &mut Connection, id: &str) -> anyhow::Result<bool> {
    let answer = connection.ec2(&format!("Action=GetConsoleOutput&InstanceId={id}"))?;
    Ok(answer.texts("output").iter().any(|text| !text.is_empty()))
}

fn terminate(connection: &mut Connection, ids: &[String]) -> anyhow::Result<()> {
    let mut call = "Action=TerminateInstances".to_owned();
    for (place, id) in (1..).zip(ids) {
        call.push_str(&format!("&InstanceId.{place}={id}"));
    }
    connection.ec2(&call)?;
    wait_until("instances are terminated", PATIENCE, || {
        let states = connection.ec2(
            "Action=DescribeInstances&Filter.1.Name=instance-state-name&Filter.1.Value.1=shutting-down",
        );
        let left = states.map(|answer| answer.texts("instanceId").len());
        (left.ok()? == 0).then_some(())
    });
    Ok(())
}

fn one(
    plan: &Plan,
    report: &mut Report,
    (cloud, connection): (&Cloud, &mut Connection),
    (guest, image, what): (&Guest, &str, &str),
) -> anyhow::Result<()> {
    let (mut own, mut other) = (vec![], vec![]);
    let server = cloud.server_pid().unwrap_or_default();
    // The kernel counts by hundredths of a second: all turns are added up.
    let (mut spent, mut polls, mut polling) = (Duration::ZERO, 0_u32, Duration::ZERO);
    let turns = plan.turns(7);
    for _ in 0..turns {
        let before = cpu_with_children(server)?;
        let start = Instant::now();
        let id = launch(connection, image)?;
        while !has_console(connection, &id)? {
            if start.elapsed() > PATIENCE {
                bail!("{id} says nothing");
            }
            polls += 1;
            std::thread::sleep(POLL);
        }
        own.push(start.elapsed());
        let spoken = cpu_with_children(server)?;
        spent += spoken - before;
        for _ in 0..POLLS {
            has_console(connection, &id)?;
            std::thread::sleep(POLL);
        }
        polling += cpu_with_children(server)? - spoken;
        terminate(connection, &[id])?;
        let start = Instant::now();
        let mut hand = Hand::start(guest)?;
        hand.first_byte()?;
        other.push(start.elapsed());
    }
    report.versus(
        &format!("launch to first console byte, {what}, against QEMU by hand"),
        Value::median_of(own),
        Value::median_of(other),
        "-",
    );
    let turns = f64::from(u32::try_from(turns)?);
    let poll = polling.as_secs_f64() / turns / f64::from(POLLS);
    let launches = spent.as_secs_f64() - poll * f64::from(polls);
    report.alone(
        &format!("CPU of the server and its helpers for that launch, without our polling, {what}"),
        Value::Seconds(launches / turns),
        "under 50 ms",
    );
    report.alone(
        &format!("CPU of the server for one look at the console, {what}"),
        Value::Seconds(poll),
        "-",
    );
    Ok(())
}

fn twenty(
    plan: &Plan,
    report: &mut Report,
    cloud: &Cloud,
    (guest, image): (&Guest, &str),
) -> anyhow::Result<()> {
    let server = cloud.server_pid().unwrap_or_default();
    let (mut own, mut other, mut spent) = (vec![], vec![], vec![]);
    for _ in 0..plan.turns(3) {
        let before = cpu_with_children(server)?;
        let start = Instant::now();
        let ids = std::thread::scope(|scope| {
            let launching: Vec<_> = (0..AT_ONCE)
                .map(|_| scope.spawn(|| launch(&mut Connection::open(cloud.address())?, image)))
                .collect();
            launching
                .into_iter()
                .map(|it| it.join().expect("a client panicked"))
                .collect::<anyhow::Result<Vec<String>>>()
        })?;
        let mut connection = Connection::open(cloud.address())?;
        for id in &ids {
            while !has_console(&mut connection, id)? {
                if start.elapsed() > PATIENCE {
                    bail!("{id} says nothing");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        own.push(start.elapsed());
        spent.push((cpu_with_children(server)? - before).as_secs_f64() / 20.0);
        terminate(&mut connection, &ids)?;
        let start = Instant::now();
        let mut hands: Vec<Hand> = (0..AT_ONCE)
            .map(|_| Hand::start(guest))
            .collect::<Result<_, _>>()?;
        hands.iter_mut().try_for_each(Hand::first_byte)?;
        other.push(start.elapsed());
    }
    report.versus(
        "20 launches of one image at once, until every console speaks, against 20 QEMUs by hand",
        Value::median_of(own),
        Value::median_of(other),
        "-",
    );
    report.alone(
        "CPU of the server and its helpers for each of the 20",
        Value::Seconds(median(spent)),
        "under 50 ms",
    );
    Ok(())
}

/// QEMU as a person would start it with the same machine; ended when dropped.
struct Hand(Child);

impl Hand {
    fn start(guest: &Guest) -> anyhow::Result<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-machine", "q35,accel=tcg,usb=off,vmport=off", "-cpu", CPU]);
        command.args(["-m", MEMORY, "-smp", "1", "-serial", "stdio"]);
        let drive = format!(
            "file={},format=raw,if=none,id=disk,snapshot=on",
            guest.image.display()
        );
        command.args(["-drive", &drive, "-device", "virtio-scsi-pci,id=scsi"]);
        command.args(["-device", "scsi-hd,bus=scsi.0,drive=disk,bootindex=1"]);
        command.args(["-netdev", "user,id=net,restrict=on"]);
        command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        command.args(["-object", "rng-random,id=entropy,filename=/dev/urandom"]);
        command.args(["-device", "virtio-rng-pci,rng=entropy"]);
        if let Some((kernel, ramdisk)) = &guest.kernel {
            command
                .arg("-kernel")
                .arg(kernel)
                .arg("-initrd")
                .arg(ramdisk);
            command.args(["-append", KERNEL_WORDS]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self(child))
    }

    fn first_byte(&mut self) -> anyhow::Result<()> {
        let console = self.0.stdout.as_mut().context("it is piped")?;
        console.read_exact(&mut [0])?;
        Ok(())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
