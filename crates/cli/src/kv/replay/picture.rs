//! The page of `kv replay --report`.

use blockmgr::movement::{TierId, TierTraffic};
use blockmgr::policy::PolicyKind;
use blockmgr::simulate::{Workload, optimum, simulate};
use blockmgr::trace::TraceRequest;
use plotters::prelude::*;

use super::{Outcome, Sample};
use crate::error::CliError;
use crate::kv::tiers::Sizes;
use crate::page::{escaped, html_table};

const SIZE: (u32, u32) = (900, 420);
const COLOURS: [RGBColor; 8] = [
    RGBColor(38, 110, 173),
    RGBColor(200, 70, 40),
    RGBColor(60, 150, 90),
    RGBColor(140, 90, 170),
    RGBColor(190, 150, 40),
    RGBColor(70, 160, 170),
    RGBColor(180, 110, 140),
    RGBColor(120, 120, 120),
];

/// A page that needs nothing from elsewhere.
pub(super) fn page(
    requests: Vec<TraceRequest>,
    sizes: &Sizes,
    outcome: &Outcome,
    samples: &[Sample],
) -> Result<String, CliError> {
    let workload: Workload = requests.into_iter().collect();
    let curves =
        chart("blocks", "hit rate", hit_rates(&workload, sizes)).map_err(CliError::picture)?;
    let drawn = chart("requests", "MiB", traffic(samples)).map_err(CliError::picture)?;
    let body = format!(
        "<p>{}</p>\n{}\n<h2>Traffic between tiers</h2>\n\
         <p>MiB that came into each tier and that were copied out of it, by requests served.</p>\n{drawn}\n\
         <h2>Hit rate by capacity</h2>\n\
         <p>Of one tier under each policy, by its capacity in blocks. The black curve is the most that any policy \
         could hit that knew the future.</p>\n{curves}",
        escaped(&outcome.heading()),
        html_table(&outcome.table_rows()),
    );
    Ok(crate::page::page("stepwell kv replay", &body))
}

type Curve = (String, RGBColor, Vec<(f64, f64)>);

/// What flowed between two samples, in MiB by requests.
fn traffic(samples: &[Sample]) -> Vec<Curve> {
    type Amount = fn(&TierTraffic) -> u64;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let directions: [(TierId, &str, Amount); 4] = [
        (TierId::G2, "into G2", |moved| moved.bytes_in),
        (TierId::G2, "out of G2", |moved| moved.bytes_out),
        (TierId::G3, "into G3", |moved| moved.bytes_in),
        (TierId::G3, "out of G3", |moved| moved.bytes_out),
    ];
    let mut curves = Vec::new();
    for ((tier, name, amount), colour) in directions.into_iter().zip(COLOURS) {
        let mut before = 0;
        let points = samples.iter().filter_map(|sample| {
            let total = amount(sample.traffic.tiers.get(&tier)?);
            let flowed = total - std::mem::replace(&mut before, total);
            Some((sample.requests as f64, mebibytes(flowed)))
        });
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            curves.push((name.to_owned(), colour, points));
        }
    }
    curves
}

/// What each policy would have hit.
fn hit_rates(workload: &Workload, sizes: &Sizes) -> Vec<Curve> {
    let distinct = workload.distinct_blocks().max(1);
    let own = [sizes.blocks[0], sizes.blocks.iter().sum()];
    let own = own.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX).clamp(1, distinct));
    let mut capacities: Vec<u32> = (1..=8_u64)
        .map(|eighth| (u64::from(distinct) * eighth / 8).max(1) as u32)
        .chain(own)
        .collect();
    capacities.sort_unstable();
    capacities.dedup();
    let curve = |rate: &dyn Fn(u32) -> f64| {
        let points = capacities
            .iter()
            .map(|&blocks| (f64::from(blocks), rate(blocks)));
        points.collect()
    };
    let ideal = curve(&|blocks| optimum(workload, blocks).rate());
    let mut curves: Vec<Curve> = vec![("optimum".to_owned(), BLACK, ideal)];
    for (policy, colour) in PolicyKind::ALL.into_iter().zip(COLOURS.into_iter().cycle()) {
        let rates = curve(&|blocks| simulate(workload, policy, blocks).rate());
        curves.push((policy.name().to_owned(), colour, rates));
    }
    curves
}

fn chart(x: &str, y: &str, curves: Vec<Curve>) -> Result<String, Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|(_, _, points)| points);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(1e-3, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top * 1.05)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, colour, points) in curves {
            let style = colour.stroke_width(2);
            chart
                .draw_series(std::iter::once(PathElement::new(points, style)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}
