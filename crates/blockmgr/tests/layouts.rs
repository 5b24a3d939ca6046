//! Layouts and conversions beside ones that count element by element.
#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use blockmgr::Error;
use blockmgr::layout::{
    Axis, AxisOrder, ConversionPlan, LayerGroup, Layout, LayoutConfig, LayoutType,
};
use proptest::prelude::*;

/// Block, layer, outer, token, head, dim.
type Element = [usize; 6];

/// Region and first byte.
type Address = (usize, usize);

/// A model and the number of its blocks.
#[derive(Debug, Clone)]
struct Model {
    num_blocks: usize,
    groups: Vec<LayerGroup>,
    page_size: usize,
    dtype_bytes: usize,
}

/// What is free to choose for one model.
#[derive(Debug, Clone)]
struct Shape {
    layout_type: LayoutType,
    alignment: usize,
    order: AxisOrder,
}

fn model() -> impl Strategy<Value = Model> {
    let group = (1usize..4, 1usize..4, 1usize..4, 1usize..4).prop_map(
        |(num_layers, outer_dim, heads, head_dim)| LayerGroup {
            num_layers,
            outer_dim,
            heads,
            head_dim,
        },
    );
    let groups = prop::collection::vec(group, 1..4);
    let dtype_bytes = prop::sample::select(vec![1usize, 2, 4]);
    (1usize..4, groups, 1usize..5, dtype_bytes).prop_map(
        |(num_blocks, groups, page_size, dtype_bytes)| Model {
            num_blocks,
            groups,
            page_size,
            dtype_bytes,
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    let order = Just(Axis::ALL.to_vec()).prop_shuffle();
    (0usize..4, 0u32..7, order).prop_map(|(kind, alignment_bits, mut axes)| {
        let layout_type = match kind {
            0 => LayoutType::FullyContiguous,
            1 => LayoutType::Paged,
            kind => LayoutType::LayerSeparate {
                outer_major: kind == 2,
            },
        };
        if kind >= 2 {
            axes.retain(|axis| ![Axis::Layer, Axis::Outer].contains(axis));
            axes.splice(0..0, [Axis::Layer, Axis::Outer]);
        }
        Shape {
            layout_type,
            alignment: 1 << alignment_bits,
            order: AxisOrder::new(axes.try_into().unwrap()).unwrap(),
        }
    })
}

fn layout(model: &Model, shape: &Shape) -> Layout {
    let builder = LayoutConfig::builder()
        .layout_type(shape.layout_type)
        .num_blocks(model.num_blocks)
        .page_size(model.page_size)
        .dtype_bytes(model.dtype_bytes)
        .alignment(shape.alignment)
        .order(shape.order);
    let groups = model.groups.iter();
    groups
        .fold(builder, |builder, group| builder.group(*group))
        .build()
        .unwrap()
}

/// Calls `visit` for each index below `extents`, the last counting fastest.
fn each(extents: &[usize], visit: &mut dyn FnMut(&[usize])) {
    let mut index = vec![0; extents.len()];
    for _ in 0..extents.iter().product() {
        visit(&index);
        for place in (0..extents.len()).rev() {
            index[place] += 1;
            if index[place] < extents[place] {
                break;
            }
            index[place] = 0;
        }
    }
}

/// Where each element is, by giving out addresses one after the other.
fn naive(model: &Model, shape: &Shape) -> BTreeMap<Element, Address> {
    let mut addresses = BTreeMap::new();
    let pad = |offset: usize| offset.next_multiple_of(shape.alignment);
    let separate = match shape.layout_type {
        LayoutType::LayerSeparate { outer_major } => Some(outer_major),
        _ => None,
    };
    let mut first_layer = 0;
    let mut in_block = 0;
    let block_bytes: usize = model.groups.iter().map(|group| bytes(model, group)).sum();
    for group in &model.groups {
        let extents = [
            group.num_layers,
            group.outer_dim,
            model.page_size,
            group.heads,
            group.head_dim,
        ];
        let ordered = shape.order.axes().map(|axis| extents[axis as usize]);
        for block in 0..model.num_blocks {
            let mut offset = in_block;
            each(&ordered, &mut |index| {
                let mut element = [block, 0, 0, 0, 0, 0];
                for (axis, index) in shape.order.axes().into_iter().zip(index) {
                    element[1 + axis as usize] = *index;
                }
                element[1] += first_layer;
                let address = match shape.layout_type {
                    LayoutType::Paged => (block, offset),
                    _ => (0, block * pad(block_bytes) + offset),
                };
                addresses.insert(element, address);
                offset += model.dtype_bytes;
            });
        }
        if let Some(outer_major) = separate {
            let inner: Vec<Axis> = shape.order.axes()[2..].to_vec();
            let inner_extents: Vec<usize> =
                inner.iter().map(|axis| extents[*axis as usize]).collect();
            for layer in 0..group.num_layers {
                let mut offset = 0;
                let (major, minor) = match outer_major {
                    true => (group.outer_dim, model.num_blocks),
                    false => (model.num_blocks, group.outer_dim),
                };
                each(&[major, minor], &mut |index| {
                    let (outer, block) = match outer_major {
                        true => (index[0], index[1]),
                        false => (index[1], index[0]),
                    };
                    if outer_major || outer == 0 {
                        offset = pad(offset);
                    }
                    each(&inner_extents, &mut |index| {
                        let mut element = [block, first_layer + layer, outer, 0, 0, 0];
                        for (axis, index) in inner.iter().zip(index) {
                            element[1 + *axis as usize] = *index;
                        }
                        addresses.insert(element, (first_layer + layer, offset));
                        offset += model.dtype_bytes;
                    });
                });
            }
        }
        in_block += bytes(model, group);
        first_layer += group.num_layers;
    }
    addresses
}

fn bytes(model: &Model, group: &LayerGroup) -> usize {
    let planes = group.num_layers * group.outer_dim * model.page_size;
    planes * group.heads * group.head_dim * model.dtype_bytes
}

/// Memory for a layout, all bytes the same.
fn memory(layout: &Layout, byte: u8) -> Vec<Vec<u8>> {
    let regions = layout.regions().iter();
    regions.map(|region| vec![byte; region.len_bytes]).collect()
}

/// What an element's bytes are filled with.
fn content(element: &Element, byte: usize) -> u8 {
    let mixed = element
        .iter()
        .fold(byte + 1, |mixed, index| mixed * 31 + index + 7);
    (mixed % 251) as u8
}

proptest! {
    #[test]
    fn elements_are_where_counting_finds_them(model in model(), shape in shape()) {
        let layout = layout(&model, &shape);
        let mut seen = memory(&layout, 0);
        for (element, (region, offset)) in naive(&model, &shape) {
            let [block, layer, inner @ ..] = element;
            let place = layout.layer(block, layer).unwrap();
            let strides = place.strides_bytes.iter().zip(inner);
            let at = strides.fold(place.offset_bytes, |at, (stride, index)| at + stride * index);
            prop_assert_eq!((place.region, at), (region, offset), "{:?}", element);
            for byte in &mut seen[region][offset..offset + model.dtype_bytes] {
                prop_assert_eq!(std::mem::replace(byte, 1), 0, "two elements in one byte");
            }
            let pieces = layout.pieces(block).unwrap();
            let inside = pieces.iter().filter(|piece| {
                piece.region == region && piece.range_bytes.contains(&offset)
            });
            prop_assert_eq!(inside.count(), 1);
        }
        for block in 0..model.num_blocks {
            let pieces = layout.pieces(block).unwrap();
            let len: usize = pieces.iter().map(|piece| piece.range_bytes.len()).sum();
            prop_assert_eq!(len, layout.block_bytes());
            prop_assert_eq!(pieces[0].range_bytes.start % shape.alignment, 0);
        }
        let size: usize = layout.regions().iter().map(|region| region.len_bytes).sum();
        prop_assert_eq!(size, layout.size_bytes());
        prop_assert!(layout.block_bytes() * model.num_blocks <= size);
    }

    #[test]
    fn a_conversion_is_the_naive_permutation(
        model in model(),
        target_blocks in 1usize..4,
        shapes in (shape(), shape()),
        chosen in (0usize..4, 0usize..4),
    ) {
        let target_model = Model { num_blocks: target_blocks, ..model.clone() };
        let source = layout(&model, &shapes.0);
        let target = layout(&target_model, &shapes.1);
        let (from, to) = (chosen.0 % model.num_blocks, chosen.1 % target_blocks);
        let mut source_memory = memory(&source, 0);
        for (element, (region, offset)) in naive(&model, &shapes.0) {
            for byte in 0..model.dtype_bytes {
                source_memory[region][offset + byte] = content(&element, byte);
            }
        }
        let mut target_memory = memory(&target, 0xee);
        let mut expected = target_memory.clone();
        for (element, (region, offset)) in naive(&target_model, &shapes.1) {
            let [block, inner @ ..] = element;
            if block == to {
                let [layer, outer, token, head, dim] = inner;
                let source_element = [from, layer, outer, token, head, dim];
                for byte in 0..model.dtype_bytes {
                    expected[region][offset + byte] = content(&source_element, byte);
                }
            }
        }
        let plan = ConversionPlan::new(&source, from, &target, to).unwrap();
        let regions: Vec<&[u8]> = source_memory.iter().map(Vec::as_slice).collect();
        let mut targets: Vec<&mut [u8]> =
            target_memory.iter_mut().map(Vec::as_mut_slice).collect();
        plan.copy(&regions, &mut targets).unwrap();
        prop_assert_eq!(&target_memory, &expected);
        let copied: usize = plan.runs().iter().map(|run| run.len_bytes).sum();
        prop_assert_eq!(copied, source.block_bytes());
    }
}

fn llama() -> blockmgr::layout::LayoutConfigBuilder {
    LayoutConfig::builder()
        .num_blocks(8)
        .num_layers(4)
        .outer_dim(2)
        .page_size(16)
        .heads(8)
        .head_dim(64)
        .dtype_bytes(2)
}

#[test]
fn equal_layouts_take_one_copy() {
    let layout = llama().build().unwrap();
    let plan = ConversionPlan::new(&layout, 1, &layout, 6).unwrap();
    assert_eq!(plan.runs().len(), 1);
    let separate = LayoutType::LayerSeparate { outer_major: true };
    let separate = llama().layout_type(separate).build().unwrap();
    let plan = ConversionPlan::new(&layout, 0, &separate, 0).unwrap();
    assert_eq!(plan.runs().len(), 8, "one for each plane");
}

#[test]
fn a_mismatch_names_its_field() {
    let layout = llama().build().unwrap();
    let others = [
        ("page_size", llama().page_size(32)),
        ("dtype_bytes", llama().dtype_bytes(1)),
        ("num_layers", llama().num_layers(5)),
        ("outer_dim", llama().outer_dim(1)),
        ("heads", llama().heads(4)),
        ("head_dim", llama().head_dim(128)),
        // As many bytes, with layers and planes swapped.
        ("num_layers", llama().num_layers(2).outer_dim(4)),
    ];
    for (expected, other) in others {
        let error = ConversionPlan::new(&layout, 0, &other.build().unwrap(), 0).unwrap_err();
        assert!(
            matches!(error, Error::LayoutMismatch { field, .. } if field == expected),
            "{error}"
        );
        assert!(error.to_string().contains(expected));
    }
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let zero = |field: &str| {
        let builder = llama();
        let builder = match field {
            "num_blocks" => builder.num_blocks(0),
            "num_layers" => builder.num_layers(0),
            "outer_dim" => builder.outer_dim(0),
            "page_size" => builder.page_size(0),
            "heads" => builder.heads(0),
            "head_dim" => builder.head_dim(0),
            "dtype_bytes" => builder.dtype_bytes(0),
            _ => builder.alignment(0),
        };
        builder.build().unwrap_err()
    };
    for name in [
        "num_blocks",
        "num_layers",
        "outer_dim",
        "page_size",
        "heads",
        "head_dim",
        "dtype_bytes",
        "alignment",
    ] {
        let error = zero(name);
        assert!(
            matches!(error, Error::InvalidConfig { field, .. } if field == name),
            "{error}"
        );
    }
    let missing = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .page_size(1)
        .inner_dim(1);
    let error = missing.build().unwrap_err();
    assert!(
        matches!(error, Error::MissingConfig { field: "outer_dim" }),
        "{error}"
    );
    let error = llama().alignment(48).build().unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidConfig {
                field: "alignment",
                ..
            }
        ),
        "{error}"
    );
    let error = llama().num_blocks(usize::MAX / 2).build().unwrap_err();
    assert!(matches!(error, Error::SizeOverflow { .. }), "{error}");
    let separate = llama().layout_type(LayoutType::LayerSeparate { outer_major: false });
    let error = separate.order(AxisOrder::UNIVERSAL).build().unwrap_err();
    assert!(
        matches!(error, Error::InvalidConfig { field: "order", .. }),
        "{error}"
    );
    let twice = [Axis::Layer, Axis::Layer, Axis::Token, Axis::Head, Axis::Dim];
    assert!(AxisOrder::new(twice).is_err());
    let layout = llama().build().unwrap();
    assert!(matches!(
        layout.layer(8, 0),
        Err(Error::OutOfRange { what: "block", .. })
    ));
    assert!(matches!(
        layout.layer(0, 4),
        Err(Error::OutOfRange { what: "layer", .. })
    ));
}
