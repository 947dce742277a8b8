//! Files that cannot be read, and nodes that have none.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::process::wait_for;
use lab::{Agent, AgentOptions};

use crate::authority::DAY;
use crate::stage::{SOON, Stage, shown, support};

const PKI: &str = "/etc/kubernetes/pki";

fn wait_support(agent: &Agent, level: &str, reason: &str) -> Result<()> {
    let wanted = (level.to_owned(), reason.to_owned());
    let waited =
        wait_for(reason, SOON, || support(agent).ok().filter(|support| *support == wanted).map(drop));
    waited.with_context(|| format!("last seen: {:?}", support(agent)))
}

fn locations(agent: &Agent) -> Result<Vec<String>> {
    Ok(shown(agent)?.into_keys().map(|(_, location)| location).collect())
}

#[test]
fn garbage_and_files_of_others_are_named_once_and_the_rest_is_read() -> Result<()> {
    let stage = Stage::new()?;
    let good = format!("{PKI}/apiserver.crt");
    let certificate = stage.authority.issue("/CN=kube-apiserver", "DNS:a", -DAY, DAY)?.certificate;
    stage.write(&good, &certificate)?;
    stage.write(
        &format!("{PKI}/garbage.crt"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )?;
    // Root without capabilities is a stranger to the files of others.
    let foreign = stage.path(&format!("{PKI}/foreign.crt"))?;
    fs::write(&foreign, &certificate)?;
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o600))?;
    chown(&foreign, Some(4711), Some(4711))?;

    let mut agent = stage.agent(&[])?;
    wait_support(&agent, "degraded", "some certificates cannot be read, see the log")?;
    assert_eq!(locations(&agent)?, std::slice::from_ref(&good));
    // The next one is told when the agent has looked again; the first ones are not told again.
    stage.write(&format!("{PKI}/later.crt"), "nothing")?;
    let service = agent.service();
    let told = |log: &str, name: &str| {
        log.lines().filter(|line| line.contains(&format!("{PKI}/{name}.crt"))).count()
    };
    wait_for("the next file in the log", SOON, || {
        service.log().ok().filter(|log| told(log, "later") == 1).map(drop)
    })?;
    let log = service.log()?;
    assert_eq!([told(&log, "garbage"), told(&log, "foreign")], [1, 1], "{log}");
    let line = |name: &str| log.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("garbage").contains("no X.509 certificate"), "{}", line("garbage"));
    assert!(line("foreign").contains("Permission denied"), "{}", line("foreign"));

    for name in ["garbage", "foreign", "later"] {
        fs::remove_file(stage.path(&format!("{PKI}/{name}.crt"))?)?;
    }
    wait_support(&agent, "supported", "")?;
    assert_eq!(locations(&agent)?, [good]);
    stage.lab.shutdown()
}

#[test]
fn more_files_than_are_read_are_counted() -> Result<()> {
    let stage = Stage::new()?;
    let certificate = stage.authority.issue("/CN=a", "DNS:a", -DAY, DAY)?.certificate;
    for number in 0..300 {
        stage.write(&format!("/srv/many/{number:03}.crt"), &certificate)?;
    }
    let agent = stage.agent(&["--certificate.paths=/srv/many"])?;
    wait_support(&agent, "degraded", "more files with certificates than are read")?;
    assert_eq!(shown(&agent)?.len(), 256);
    assert_eq!(agent.scrape()?.count("leadline_certificate_omitted", &[]), Some(44));
    stage.lab.shutdown()
}

#[test]
fn a_node_without_any_has_a_reason_and_no_series() -> Result<()> {
    let stage = Stage::new()?;
    let agent = stage.agent(&[])?;
    wait_support(&agent, "no", "no certificate of Kubernetes or etcd on this node")?;
    let page = agent.scrape()?;
    let about = page.all().iter().filter(|sample| sample.name.starts_with("leadline_certificate_"));
    assert_eq!(about.count(), 0);
    drop(agent);
    // Who insists on it is told why not.
    let arguments = vec!["--collector.certificate=on".to_owned()];
    let mut agent = Agent::spawn(stage.node()?, &AgentOptions { arguments, ..AgentOptions::default() })?;
    assert!(!agent.service().wait(Duration::from_secs(20))?.success());
    let log = agent.service().log()?;
    assert!(log.contains("collector certificate must run but cannot: no certificate of Kubernetes"), "{log}");
    stage.lab.shutdown()
}
