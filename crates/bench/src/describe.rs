//! Answers with 100,000 instances present: CPU per answer, memory, and starting with that state.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cumulet_testkit::Cloud;

use crate::Plan;
use crate::bare::Bare;
use crate::client::{Answer, Connection};
use crate::process::{Threads, memory_mib};
use crate::report::{Report, Value, median};

/// Instances of one launch; pages of 1,000 are then whole reservations.
const LAUNCHED: usize = 50;
const CLIENTS: usize = 4;
const ANSWERS: usize = 2_000;
const PAGES: usize = 20;

/// Settings of a cloud without walls.
pub(crate) const ROOMY: [(&str, &str); 3] = [
    ("CUMULET_COMPUTE", "simulated"),
    ("CUMULET_LIMITS_INSTANCES_PER_ACCOUNT", "10000000"),
    ("CUMULET_INSTANCES_MEMORY_MIB", "1000000000000"),
];

/// A cloud with an image that can be launched.
pub(crate) fn cloud_with_image(plan: &Plan) -> anyhow::Result<(Cloud, String)> {
    let mut cloud = Cloud::prepare(&plan.program, &ROOMY);
    let file = cloud.scratch().join("image");
    std::fs::write(&file, vec![0x5a; 1 << 20])?;
    let file = file.to_str().context("a path")?;
    cloud.run(&[
        "image", "import", file, "--name", "bench", "--kind", "rootfs", "--format", "raw",
    ]);
    cloud.restart();
    let images = Connection::open(cloud.address())?.ec2("Action=DescribeImages&Owner.1=self")?;
    let image = images.texts("imageId").pop().context("an image")?;
    Ok((cloud, image))
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let count = if plan.is_quick { 10_000 } else { 100_000 };
    let (mut cloud, image) = cloud_with_image(plan)?;
    let empty = memory_mib(cloud.server_pid().unwrap_or_default())?.0;
    let start = Instant::now();
    let ids = fill(cloud.address(), &image, count)?;
    eprintln!("{count} instances were launched in {:.1?}", start.elapsed());
    settle(cloud.address())?;
    eprintln!("and recorded as running after {:.1?}", start.elapsed());
    quiet(&cloud)?;
    let grown = memory_mib(cloud.server_pid().unwrap_or_default())?.0;
    let name = |what: &str| format!("{what}, {count} instances");
    report.alone(
        &name("memory after launching"),
        Value::Mib(grown),
        "under 300 MiB",
    );
    by_id(plan, report, &cloud, &image, &ids)?;
    by_page(plan, report, &cloud, &image)?;
    // The simulated host forgets its machines, and all are started again: this comes last.
    cloud.stop();
    let start = Instant::now();
    cloud.restart();
    Connection::open(cloud.address())?
        .ec2(&format!("Action=DescribeInstances&InstanceId.1={}", ids[0]))?;
    let loading = start.elapsed().as_secs_f64();
    let loaded = memory_mib(cloud.server_pid().unwrap_or_default())?.0;
    report.alone(
        &name("memory of the state, just loaded"),
        Value::Mib(loaded - empty),
        "under 300 MiB",
    );
    report.alone(&name("start to first answer"), Value::Seconds(loading), "-");
    Ok(())
}

/// Waits until the server has nothing to do but answer.
fn quiet(cloud: &Cloud) -> anyhow::Result<()> {
    let server = cloud.server_pid().unwrap_or_default();
    loop {
        let before = Threads::of(server)?;
        std::thread::sleep(Duration::from_secs(2));
        if Threads::of(server)?.since(&before) < Duration::from_millis(50) {
            return Ok(());
        }
    }
}

/// Launches until there are `count`; gives their ids.
fn fill(address: SocketAddr, image: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let calls = count / LAUNCHED / CLIENTS;
    let call =
        format!("Action=RunInstances&ImageId={image}&MinCount={LAUNCHED}&MaxCount={LAUNCHED}");
    let launched = in_parallel(|_| {
        let mut connection = Connection::open(address)?;
        let mut ids = vec![];
        for _ in 0..calls {
            ids.extend(connection.ec2(&call)?.texts("instanceId"));
        }
        Ok(ids)
    })?;
    Ok(launched.into_iter().flatten().collect())
}

fn settle(address: SocketAddr) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let call = "Action=DescribeInstances&MaxResults=5&Filter.1.Name=instance-state-name&Filter.1.Value.1=pending";
    while !connection.ec2(call)?.texts("instanceId").is_empty() {
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Runs `work` once per client and gives all results.
fn in_parallel<T: Send>(
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || work(client)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect()
    })
}

/// CPU per answer of the process while the clients ask.
fn cpu_per_answer(
    (pid, address): (u32, SocketAddr),
    answers: usize,
    ask: impl Fn(&mut Connection, usize, usize) -> anyhow::Result<Answer> + Sync,
) -> anyhow::Result<f64> {
    let each = answers / CLIENTS;
    // Connecting is not what is measured.
    let connections: Vec<_> = (0..CLIENTS)
        .map(|_| Connection::open(address).map(std::sync::Mutex::new))
        .collect::<Result<_, _>>()?;
    let before = Threads::of(pid)?;
    in_parallel(|client| {
        let mut connection = connections[client].lock().expect("only we have it");
        for turn in 0..each {
            ask(&mut connection, client, turn)?;
        }
        Ok(())
    })?;
    let spent = Threads::of(pid)?.since(&before).as_secs_f64();
    Ok(spent / f64::from(u32::try_from(each * CLIENTS)?))
}

/// Something changes: the next answers come from another state.
fn write_between(address: SocketAddr, image: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let launched = connection.ec2(&format!(
        "Action=RunInstances&ImageId={image}&MinCount=1&MaxCount=1"
    ))?;
    let id = launched.texts("instanceId").pop().context("an instance")?;
    connection.ec2(&format!("Action=TerminateInstances&InstanceId.1={id}"))?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn bare_for(cloud: &Cloud, name: &str, body: &[u8]) -> anyhow::Result<Bare> {
    let path = cloud.scratch().join(name);
    std::fs::write(&path, body)?;
    Bare::start(Path::new(&path))
}

fn by_id(
    plan: &Plan,
    report: &mut Report,
    cloud: &Cloud,
    image: &str,
    ids: &[String],
) -> anyhow::Result<()> {
    let call = |id: &str| format!("Action=DescribeInstances&InstanceId.1={id}");
    let sample = Connection::open(cloud.address())?.ec2(&call(&ids[0]))?;
    let bare = bare_for(cloud, "one", &sample.body)?;
    let ours = (cloud.server_pid().unwrap_or_default(), cloud.address());
    let reference = (bare.pid(), bare.address);
    let (mut own, mut other, mut nothing) = (vec![], vec![], vec![]);
    for turn in 0..plan.turns(9) {
        // Every request of every turn is about another instance.
        let id = |connection: &mut Connection, client: usize, number: usize| {
            let place = (turn * ANSWERS + client * ANSWERS / CLIENTS + number) * 7919;
            connection.ec2(&call(&ids[place % ids.len()]))
        };
        write_between(cloud.address(), image)?;
        own.push(cpu_per_answer(ours, ANSWERS, id)?);
        other.push(cpu_per_answer(reference, ANSWERS, id)?);
        nothing.push(cpu_per_answer(ours, ANSWERS, |it, _, _| it.health())?);
    }
    report.versus(
        &format!(
            "CPU of a signed DescribeInstances by id, {} bytes, against bare hyper",
            sample.body.len()
        ),
        Value::Seconds(median(own)),
        Value::Seconds(median(other)),
        "at most 2.5",
    );
    report.alone(
        "of it, what our answer to a request for nothing (/_cumulet/health) costs",
        Value::Seconds(median(nothing)),
        "-",
    );
    Ok(())
}

fn by_page(plan: &Plan, report: &mut Report, cloud: &Cloud, image: &str) -> anyhow::Result<()> {
    let first = "Action=DescribeInstances&MaxResults=1000";
    let mut connection = Connection::open(cloud.address())?;
    let sample = connection.ec2(first)?;
    let mut tokens = sample.texts("nextToken");
    // Different pages for every request.
    while tokens.len() < PAGES
        && let Some(token) = tokens.last()
    {
        let next = connection.ec2(&format!("{first}&NextToken={token}"))?;
        let Some(token) = next.texts("nextToken").pop() else {
            break;
        };
        tokens.push(token);
    }
    let count = sample.texts("reservationId").len() * LAUNCHED;
    let bare = bare_for(cloud, "page", &sample.body)?;
    let ours = (cloud.server_pid().unwrap_or_default(), cloud.address());
    let reference = (bare.pid(), bare.address);
    let page = |connection: &mut Connection, client: usize, turn: usize| {
        let token = &tokens[(client * PAGES / CLIENTS + turn) % tokens.len()];
        connection.ec2(&format!("{first}&NextToken={token}"))
    };
    let (mut own, mut other) = (vec![], vec![]);
    for _ in 0..plan.turns(9) {
        write_between(cloud.address(), image)?;
        own.push(cpu_per_answer(ours, PAGES, page)?);
        other.push(cpu_per_answer(reference, PAGES, page)?);
    }
    report.versus(
        &format!(
            "CPU of a page of {count}, {} KiB, against bare hyper",
            sample.body.len() / 1024
        ),
        Value::Seconds(median(own)),
        Value::Seconds(median(other)),
        "under 5 ms",
    );
    Ok(())
}
