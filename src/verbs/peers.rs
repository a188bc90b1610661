//! `cairn peers`: who the node is connected to.

use std::process::ExitCode;
use std::time::Duration;

use cairn_node::control::Request;
use indicatif::{HumanBytes, HumanDuration};
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Peers)?;
    if !session.json && output::items(&answer.value, "peers").is_empty() {
        output::message(if answer.running {
            "no peers; `peers` in the settings or `cairn up --peer MULTIADDR` names one\n"
        } else {
            "no node runs here; `cairn up` starts it\n"
        });
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let amount = |peer: &Value, member| HumanBytes(output::number(peer, member)).to_string();
    let rows: Vec<Vec<String>> = output::items(value, "peers")
        .iter()
        .map(|peer| {
            let connected = Duration::from_secs(output::number(peer, "connected_s"));
            vec![
                output::text(peer, "peer_id"),
                output::text(peer, "address"),
                output::text(peer, "agent"),
                HumanDuration(connected).to_string(),
                peer["rtt_ms"]
                    .as_f64()
                    .map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
                if output::flag(peer, "inbound") {
                    "in"
                } else {
                    "out"
                }
                .to_owned(),
                amount(peer, "sent_bytes"),
                amount(peer, "taken_bytes"),
            ]
        })
        .collect();
    let titles = [
        "PEER",
        "ADDRESS",
        "AGENT",
        "CONNECTED",
        "ROUND TRIP",
        "WAY",
        "SENT",
        "TAKEN",
    ];
    output::table(&titles, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_peer() {
        let text = render(&json!({"peers": [
            {"peer_id": "12D3a", "address": "/ip4/10.0.0.1/tcp/1", "agent": "cairn/0.1.0",
             "connected_s": 7200, "inbound": true, "rtt_ms": 0.52, "sent_bytes": 0, "taken_bytes": 2048},
            {"peer_id": "12D3b", "address": "/ip6/::1/udp/1/quic-v1", "agent": "cairn/0.1.0",
             "connected_s": 1, "inbound": false, "rtt_ms": null, "sent_bytes": 5, "taken_bytes": 0},
        ]}));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(lines[0][0], "PEER");
        assert_eq!(
            lines[1],
            [
                "12D3a",
                "/ip4/10.0.0.1/tcp/1",
                "cairn/0.1.0",
                "2 hours",
                "0.5 ms",
                "in",
                "0 B",
                "2.00 KiB"
            ]
        );
        assert_eq!(lines[2][3..], ["1 second", "-", "out", "5 B", "0 B"]);
    }
}
