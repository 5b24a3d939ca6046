//! Pages that need nothing from elsewhere.

use std::fmt::Write as _;

/// A page of that title; the body is HTML.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>{title}</title><style>\
         body{{font:16px/1.5 sans-serif;color:#282828;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         table{{border-collapse:collapse;margin:1rem 0}}\
         td,th{{padding:.2rem .8rem;border-bottom:1px solid #d2d2d2;text-align:left}}\
         svg{{max-width:100%;height:auto}}\
         </style></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
    )
}

/// Text as HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
        escaped
    })
}

/// Rows as a table; the first one is the head.
pub(crate) fn html_table(rows: &[Vec<String>]) -> String {
    let mut html = String::from("<table>\n");
    for (number, cells) in rows.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for cell in cells {
            // Writing to a string can't fail.
            let _ = write!(html, "<{tag}>{}</{tag}>", escaped(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>");
    html
}
