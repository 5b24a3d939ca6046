//! The page that `--report` writes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::outcome::{Outcome, WorkOutcome};
use crate::error::CliError;
use crate::page::{escaped, html_table};

const WIDTH: u32 = 900;
const ROW_HEIGHT: u32 = 44;
/// Where the bars begin: left of it stand the titles.
const LEFT: i32 = 330;
const TOP: i32 = 40;
const RIGHT_MARGIN: i32 = 70;

const STORE: RGBColor = RGBColor(38, 110, 173);
const SPREAD: RGBColor = RGBColor(20, 50, 80);
const BAR: RGBColor = RGBColor(200, 70, 40);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(210, 210, 210);

/// A page that needs nothing from elsewhere.
pub(super) fn page(outcome: &Outcome) -> Result<String, CliError> {
    let picture = picture(&outcome.works).map_err(CliError::picture)?;
    let body = format!(
        "<p>{}</p>\n\
         <p>Each bar is the time of a raw loop of the same bytes by the time of the store: 1 is the speed of \
         the device. The thin line spans the quartiles of the rounds, the red mark is the bar that is asked \
         of the store.</p>\n{picture}\n{}\n{}",
        escaped(&outcome.heading()),
        html_table(&outcome.throughput_rows()),
        html_table(&outcome.cost_rows()),
    );
    Ok(crate::page::page("stepwell bench nvme", &body))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A bar for each piece of work.
fn picture(works: &[WorkOutcome]) -> Result<String, Box<dyn std::error::Error>> {
    let height = TOP as u32 + ROW_HEIGHT * works.len() as u32 + 10;
    let largest = works.iter().map(|work| work.ratio_upper_quartile);
    let scale = Scale {
        ratio_max: largest.fold(1.1, f64::max),
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw_grid(&area, &scale, height)?;
        for (number, work) in works.iter().enumerate() {
            let top = TOP + (ROW_HEIGHT as usize * number) as i32;
            draw_work(&area, &scale, work, top)?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Where a ratio lies in the picture.
struct Scale {
    ratio_max: f64,
}

impl Scale {
    fn x(&self, ratio: f64) -> i32 {
        let width = f64::from(WIDTH as i32 - LEFT - RIGHT_MARGIN);
        LEFT + (ratio.clamp(0.0, self.ratio_max) / self.ratio_max * width) as i32
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn label(size: f64, horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&INK)
        .pos(Pos::new(horizontal, VPos::Center))
}

fn draw_grid(area: &Area<'_>, scale: &Scale, height: u32) -> Drawn {
    let bottom = height as i32 - 8;
    for tenths in (0..).step_by(2) {
        let ratio = f64::from(tenths) / 10.0;
        if ratio > scale.ratio_max {
            break;
        }
        let x = scale.x(ratio);
        let line = if tenths == 10 { &INK } else { &GRID };
        area.draw(&PathElement::new(
            vec![(x, TOP - 8), (x, bottom)],
            line.stroke_width(1),
        ))?;
        let text = format!("{ratio:.1}");
        area.draw(&Text::new(text, (x, TOP - 20), label(13.0, HPos::Center)))?;
    }
    Ok(())
}

fn draw_work(area: &Area<'_>, scale: &Scale, work: &WorkOutcome, top: i32) -> Drawn {
    let middle = top + ROW_HEIGHT as i32 / 2;
    let (low, high) = (top + 8, top + ROW_HEIGHT as i32 - 8);
    area.draw(&Text::new(
        work.title.to_owned(),
        (LEFT - 12, middle),
        label(14.0, HPos::Right),
    ))?;
    let end = scale.x(work.ratio);
    area.draw(&Rectangle::new([(LEFT, low), (end, high)], STORE.filled()))?;
    let spread = vec![
        (scale.x(work.ratio_lower_quartile), middle),
        (scale.x(work.ratio_upper_quartile), middle),
    ];
    area.draw(&PathElement::new(spread, SPREAD.stroke_width(2)))?;
    if let Some(min) = work.ratio_min {
        let x = scale.x(min);
        let mark = vec![(x, low - 4), (x, high + 4)];
        area.draw(&PathElement::new(mark, BAR.stroke_width(2)))?;
    }
    let beside = scale.x(work.ratio_upper_quartile.max(work.ratio)) + 8;
    area.draw(&Text::new(
        format!("{:.2}", work.ratio),
        (beside, middle),
        label(14.0, HPos::Left),
    ))?;
    Ok(())
}
