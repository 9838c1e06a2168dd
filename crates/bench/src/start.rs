//! From nothing to the first answer, and what an idle server holds.

use std::time::{Duration, Instant};

use cumulet_testkit::Cloud;

use crate::Plan;
use crate::client::Connection;
use crate::process::memory_mib;
use crate::report::{Report, Value, median};

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (mut first, mut later, mut all, mut anonymous) = (vec![], vec![], vec![], vec![]);
    for _ in 0..plan.turns(9) {
        let mut cloud = Cloud::prepare(&plan.program, &[("CUMULET_COMPUTE", "simulated")]);
        first.push(answered(&mut cloud)?);
        cloud.stop();
        later.push(answered(&mut cloud)?);
        std::thread::sleep(Duration::from_millis(500));
        let pid = cloud.server_pid().unwrap_or_default();
        let (resident, own) = memory_mib(pid)?;
        all.push(resident);
        anonymous.push(own);
    }
    report.alone(
        "very first start (makes keys and certificates) to first answer",
        Value::median_of(first),
        "-",
    );
    report.alone(
        "start to first answer, empty state",
        Value::median_of(later),
        "under 50 ms",
    );
    report.alone("idle memory", Value::Mib(median(all)), "under 25 MiB");
    report.alone(
        "idle memory without file pages",
        Value::Mib(median(anonymous)),
        "-",
    );
    Ok(())
}

fn answered(cloud: &mut Cloud) -> anyhow::Result<Duration> {
    let start = Instant::now();
    cloud.restart();
    Connection::open(cloud.address())?.ec2("Action=DescribeInstances")?;
    Ok(start.elapsed())
}
