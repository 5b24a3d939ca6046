//! The page of `weights diff --report`.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Difference, LayerDifference, change};
use crate::error::CliError;
use crate::page::{escaped, html_table};

const WIDTH: u32 = 900;
const ROW_HEIGHT: i32 = 24;
/// Where the bars begin: left of it stand the layers.
const LEFT: i32 = 330;
const TOP: i32 = 40;
const RIGHT_MARGIN: i32 = 90;
/// The powers of ten at the ends of the scale.
const LOWEST: i32 = -6;
const HIGHEST: i32 = 1;
/// The longest name of a layer that has room, in characters.
const NAME_LEN_MAX: usize = 44;

const CHANGED: RGBColor = RGBColor(38, 110, 173);
const UNLIKE: RGBColor = RGBColor(200, 70, 40);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(210, 210, 210);

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A page that needs nothing from elsewhere.
pub(super) fn page(difference: &Difference) -> Result<String, CliError> {
    let picture = picture(&difference.layers).map_err(CliError::picture)?;
    let body = format!(
        "<p>{}</p>\n<p>Each bar is the relative change of a layer: the root of the mean square of what \
         was added to its elements, by that of the elements. The scale is one of powers of ten; a layer \
         without a bar is the same. Red are layers in which tensors came, went, changed their \
         shape, or are of a type whose elements are not compared.</p>\n{picture}\n<h2>Layers</h2>\n{}\n\
         <h2>Tensors that are not the same</h2>\n{}",
        escaped(&difference.heading()),
        html_table(&difference.layer_rows()),
        html_table(&difference.tensor_rows()),
    );
    let title = format!("{} and {}", difference.first, difference.second);
    Ok(crate::page::page(&title, &body))
}

fn picture(layers: &[LayerDifference]) -> Result<String, Box<dyn std::error::Error>> {
    let height = TOP + ROW_HEIGHT * i32::try_from(layers.len())? + 10;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height as u32)).into_drawing_area();
        draw_scale(&area, height)?;
        for (layer, top) in layers.iter().zip((TOP..).step_by(ROW_HEIGHT as usize)) {
            draw_layer(&area, layer, top)?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Where a relative change lies.
fn x_of(change: f64) -> i32 {
    let width = f64::from(WIDTH as i32 - LEFT - RIGHT_MARGIN);
    let power = change.log10().clamp(f64::from(LOWEST), f64::from(HIGHEST));
    LEFT + (width * (power - f64::from(LOWEST)) / f64::from(HIGHEST - LOWEST)) as i32
}

fn label(size: f64, horizontal: HPos) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&INK)
        .pos(Pos::new(horizontal, VPos::Center))
}

fn draw_scale(area: &Area<'_>, height: i32) -> Drawn {
    for power in LOWEST..=HIGHEST {
        let x = x_of(10_f64.powi(power));
        let line = vec![(x, TOP - 8), (x, height - 8)];
        area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
        let text = format!("1e{power}");
        area.draw(&Text::new(text, (x, TOP - 20), label(13.0, HPos::Center)))?;
    }
    Ok(())
}

fn draw_layer(area: &Area<'_>, layer: &LayerDifference, top: i32) -> Drawn {
    let middle = top + ROW_HEIGHT / 2;
    let chars = layer.layer.chars().count();
    let name: String = match chars > NAME_LEN_MAX {
        true => {
            let end = layer.layer.chars().skip(chars - NAME_LEN_MAX);
            std::iter::once('…').chain(end).collect()
        }
        false => layer.layer.clone(),
    };
    area.draw(&Text::new(
        name,
        (LEFT - 12, middle),
        label(13.0, HPos::Right),
    ))?;
    let (low, high) = (top + 4, top + ROW_HEIGHT - 4);
    let (end, colour, text) = match layer.relative_change {
        Some(relative) if relative > 0.0 => (x_of(relative), CHANGED, change(Some(relative))),
        _ if layer.changed_tensors > 0 => (LEFT + 6, UNLIKE, "other tensors".to_owned()),
        _ => return Ok(()),
    };
    area.draw(&Rectangle::new(
        [(LEFT, low), (end.max(LEFT + 2), high)],
        colour.filled(),
    ))?;
    area.draw(&Text::new(text, (end + 8, middle), label(13.0, HPos::Left)))?;
    Ok(())
}
