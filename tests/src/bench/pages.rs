//! What operators look at: pages of a list, one machine, a search.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::client::get;
use super::fill::{mac, name};
use super::http::somewhere;
use super::report::{Report, Times};
use super::server::Server;

/// How often each is asked, unless that takes longer than [`MOST`].
const TIMES: usize = 40;
const MOST: Duration = Duration::from_secs(8);

/// The path of the `n`th question.
type Path = Box<dyn Fn(usize) -> String>;

/// Asks for each kind of page, one question after the other.
pub(crate) async fn run(report: &mut Report, server: &Server, machines: usize) -> Result<()> {
    let of = move |n: usize| somewhere(n, machines);
    let all = "/apis/dragonfly.computer/v1/hardware";
    let lines = "/dragonfly/v1/machines";
    let cases: [(&str, Path); 11] = [
        ("first page of 100 objects", Box::new(move |_| format!("{all}?limit=100"))),
        ("page of 100 objects further on", Box::new(move |n| format!("{all}?limit=100&continue={}", name(of(n))))),
        ("objects with a label", Box::new(move |n| format!("{all}?limit=100&labelSelector=rack%3Dr{}", of(n) / 40))),
        ("one machine by name", Box::new(move |n| format!("/dragonfly/v1/machines/{}", name(of(n))))),
        ("one machine by MAC", Box::new(move |n| format!("/dragonfly/v1/machines/{}", mac(of(n))))),
        ("first 100 machines, a line each", Box::new(move |_| format!("{lines}?limit=100"))),
        ("search by serial number", Box::new(move |n| format!("{lines}?limit=100&q=S5{:08}", of(n)))),
        ("search by part of a name, many match", Box::new(move |n| format!("{lines}?limit=100&q={}", of(n) % 10))),
        ("search by label", Box::new(move |n| format!("{lines}?limit=100&labelSelector=rack%3Dr{}", of(n) / 40))),
        ("machines' web page", Box::new(|_| "/".to_owned())),
        ("web page, search for one", Box::new(move |n| format!("/?q={}", name(of(n)).replace('-', "")))),
    ];
    for (case, path) in cases {
        let mut connection = server.connect()?;
        let (mut times, begin, mut bytes) = (Times::default(), Instant::now(), 0);
        for n in 0..TIMES {
            let request = get(&path(n), server.token());
            let asked = Instant::now();
            let answer = connection.ask(&request).await?;
            times.add(asked.elapsed());
            ensure!(answer.status == 200, "{} is answered {}", path(n), answer.status);
            bytes = answer.body.len();
            if begin.elapsed() > MOST {
                break;
            }
        }
        let case = format!("{case}, {machines} machines");
        report.ours(&format!("{case}, p50"), "ms", times.part(0.5));
        report.ours(&format!("{case}, p99"), "ms", times.part(0.99));
        report.ours(&format!("{case}, answer"), "KiB", bytes as f64 / 1024.0);
    }
    Ok(())
}
