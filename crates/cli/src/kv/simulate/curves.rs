//! The page of `kv simulate --report`.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::outcome::Outcome;
use crate::error::CliError;
use crate::page::{escaped, html_table};

const WIDTH: i32 = 900;
const HEIGHT: i32 = 520;
const LEFT: i32 = 60;
const TOP: i32 = 20;
const BOTTOM: i32 = HEIGHT - 50;
/// Where the curves end: right of it stand their names.
const RIGHT: i32 = WIDTH - 150;
const NAME_HEIGHT: i32 = 22;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(215, 215, 215);
const DEFAULT: RGBColor = RGBColor(200, 70, 40);
const OTHERS: [RGBColor; 7] = [
    RGBColor(38, 110, 173),
    RGBColor(60, 150, 90),
    RGBColor(140, 90, 170),
    RGBColor(190, 150, 40),
    RGBColor(70, 160, 170),
    RGBColor(180, 110, 140),
    RGBColor(120, 120, 120),
];

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A page that needs nothing from elsewhere.
pub(super) fn page(outcome: &Outcome) -> Result<String, CliError> {
    let picture = picture(outcome).map_err(CliError::picture)?;
    let body = format!(
        "<p>{}</p>\n<p>Hit rate by capacity in blocks, on a logarithmic scale. The black curve is the \
         most that any policy could hit that knew the future.</p>\n{picture}\n{}",
        escaped(&outcome.heading()),
        html_table(&outcome.table_rows()),
    );
    Ok(crate::page::page("stepwell kv simulate", &body))
}

fn picture(outcome: &Outcome) -> Result<String, Box<dyn std::error::Error>> {
    let capacities = outcome.capacities();
    let scale = Scale::new(outcome, &capacities);
    let mut svg = String::new();
    {
        let area =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        draw_grid(&area, &scale, &capacities)?;
        let mut colours = OTHERS.iter().cycle();
        let mut curves = vec![("optimum", INK, outcome.optimum())];
        for (policy, default, rates) in outcome.curves() {
            let colour = match default {
                true => DEFAULT,
                false => colours.next().copied().unwrap_or(INK),
            };
            curves.push((policy, colour, rates));
        }
        // Names in the order of the curves' ends, apart enough to be read.
        curves.sort_by(|one, other| last(&other.2).total_cmp(&last(&one.2)));
        let mut name_y = TOP;
        for (name, colour, rates) in &curves {
            name_y = scale.y(last(rates)).max(name_y);
            let points: Vec<(i32, i32)> = capacities
                .iter()
                .zip(rates)
                .map(|(&capacity, &rate)| (scale.x(capacity), scale.y(rate)))
                .collect();
            draw_curve(&area, name, colour, points, name_y)?;
            name_y += NAME_HEIGHT;
        }
        area.present()?;
    }
    Ok(svg)
}

fn last(rates: &[f64]) -> f64 {
    rates.last().copied().unwrap_or(0.0)
}

/// Where a capacity and a rate lie in the picture.
struct Scale {
    least: f64,
    doublings: f64,
    rate_max: f64,
}

impl Scale {
    fn new(outcome: &Outcome, capacities: &[u32]) -> Self {
        let log = |capacity: Option<&u32>| f64::from(capacity.copied().unwrap_or(1)).log2();
        let least = log(capacities.first());
        Self {
            least,
            doublings: (log(capacities.last()) - least).max(1.0),
            rate_max: (outcome.ceiling_hit_rate * 1.05).clamp(0.05, 1.0),
        }
    }

    fn x(&self, capacity: u32) -> i32 {
        let share = (f64::from(capacity).log2() - self.least) / self.doublings;
        LEFT + 10 + (share * f64::from(RIGHT - LEFT - 20)) as i32
    }

    fn y(&self, rate: f64) -> i32 {
        BOTTOM - (rate / self.rate_max * f64::from(BOTTOM - TOP)) as i32
    }
}

fn label(horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", 14.0)
        .into_font()
        .color(&INK)
        .pos(Pos::new(horizontal, VPos::Center))
}

fn draw_grid(area: &Area<'_>, scale: &Scale, capacities: &[u32]) -> Drawn {
    let step = if scale.rate_max > 0.5 { 0.1 } else { 0.05 };
    for number in 0..=(scale.rate_max / step) as u32 {
        let rate = f64::from(number) * step;
        let y = scale.y(rate);
        let line = vec![(LEFT, y), (RIGHT, y)];
        area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
        let text = Text::new(format!("{rate:.2}"), (LEFT - 8, y), label(HPos::Right));
        area.draw(&text)?;
    }
    let mut written_to = 0;
    for &capacity in capacities {
        let x = scale.x(capacity);
        let line = vec![(x, TOP), (x, BOTTOM)];
        area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
        if x >= written_to {
            let place = (x, BOTTOM + 18);
            area.draw(&Text::new(capacity.to_string(), place, label(HPos::Center)))?;
            written_to = x + 70;
        }
    }
    Ok(())
}

fn draw_curve(
    area: &Area<'_>,
    name: &str,
    colour: &RGBColor,
    points: Vec<(i32, i32)>,
    name_y: i32,
) -> Drawn {
    for &point in &points {
        area.draw(&Circle::new(point, 3, colour.filled()))?;
    }
    let end = points.last().copied().unwrap_or((RIGHT, BOTTOM));
    area.draw(&PathElement::new(points, colour.stroke_width(2)))?;
    let leader = vec![end, (RIGHT + 6, name_y)];
    area.draw(&PathElement::new(leader, colour.stroke_width(1)))?;
    let text = Text::new(name.to_owned(), (RIGHT + 10, name_y), label(HPos::Left));
    area.draw(&text)?;
    Ok(())
}
