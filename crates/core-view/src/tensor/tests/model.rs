//! Chains of views against a model that lists each element by its coordinates.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Tensor, counted};
use crate::ViewError;

/// A shape and its elements in row-major order. The elements of the first tensor of a chain are their own
/// distances in memory, and so they remain in every view of it.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    shape: Vec<usize>,
    elements: Vec<u32>,
}

fn coordinates(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![Vec::new()], |prefixes, &len| {
        prefixes
            .iter()
            .flat_map(|prefix| (0..len).map(|at| [prefix.as_slice(), &[at]].concat()))
            .collect()
    })
}

impl Model {
    fn counted(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            elements: (0..shape.iter().product::<usize>() as u32).collect(),
        }
    }

    /// A model of another shape; `source` says which element each coordinate shows.
    fn mapped(&self, shape: Vec<usize>, source: impl Fn(&[usize]) -> Vec<usize>) -> Self {
        let places: HashMap<_, _> = coordinates(&self.shape)
            .into_iter()
            .zip(&self.elements)
            .collect();
        let elements = coordinates(&shape)
            .iter()
            .map(|at| *places[&source(at)])
            .collect();
        Self { shape, elements }
    }

    /// Whether some strides show the elements in this shape, found without knowing how.
    fn has_strides(&self, shape: &[usize]) -> bool {
        let places = coordinates(shape);
        let Some(&first) = self.elements.first() else {
            return true;
        };
        let distance = |at: usize| i64::from(self.elements[at]) - i64::from(first);
        let strides: Vec<i64> = (0..shape.len())
            .map(|dim| {
                let inner: usize = shape[dim + 1..].iter().product();
                if shape[dim] > 1 { distance(inner) } else { 0 }
            })
            .collect();
        places.iter().enumerate().all(|(at, place)| {
            let sum: i64 = place
                .iter()
                .zip(&strides)
                .map(|(&p, &s)| p as i64 * s)
                .sum();
            sum == distance(at)
        })
    }
}

/// One step of a chain; the numbers are reduced to what the tensor at hand allows.
#[derive(Debug, Clone)]
enum Step {
    Narrow(usize, usize, usize),
    Slice(usize, usize, usize, isize),
    Flip(usize),
    Select(usize, usize),
    Transpose(usize, usize),
    Permute(Vec<usize>),
    Unsqueeze(usize),
    Squeeze(usize),
    Broadcast(Vec<usize>, Vec<usize>),
    Reshape(Vec<usize>),
    Contiguous,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0_usize..24;
    let step = prop_oneof![
        (n.clone(), n.clone(), n.clone()).prop_map(|(d, s, l)| Step::Narrow(d, s, l)),
        (
            n.clone(),
            n.clone(),
            n.clone(),
            prop_oneof![-3_isize..0, 1_isize..4]
        )
            .prop_map(|(d, s, e, by)| Step::Slice(d, s, e, by)),
        n.clone().prop_map(Step::Flip),
        (n.clone(), n.clone()).prop_map(|(d, i)| Step::Select(d, i)),
        (n.clone(), n.clone()).prop_map(|(a, b)| Step::Transpose(a, b)),
        Just((0..8).collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(Step::Permute),
        n.clone().prop_map(Step::Unsqueeze),
        n.clone().prop_map(Step::Squeeze),
        (
            prop::collection::vec(1_usize..3, 0..2),
            prop::collection::vec(1_usize..4, 8)
        )
            .prop_map(|(leading, repeats)| Step::Broadcast(leading, repeats)),
        prop::collection::vec(1_usize..7, 0..4).prop_map(Step::Reshape),
        Just(Step::Contiguous),
    ];
    prop::collection::vec(step, 0..8)
}

/// Factors of the element count, as close to the wishes as division allows, the rest last.
fn factored(elements: usize, wishes: &[usize]) -> Vec<usize> {
    let mut rest = elements;
    let mut shape = Vec::new();
    for &wish in wishes {
        if rest > 0 && rest.is_multiple_of(wish) {
            shape.push(wish);
            rest /= wish;
        }
    }
    shape.push(rest);
    shape
}

fn apply(step: &Step, tensor: &Tensor, model: &Model) -> Option<(Tensor, Model)> {
    let rank = model.shape.len();
    let dim_of = |wish: usize| (rank > 0).then(|| wish % rank);
    match step {
        Step::Narrow(dim, start, len) => {
            let dim = dim_of(*dim)?;
            let start = start % (model.shape[dim] + 1);
            let len = len % (model.shape[dim] - start + 1);
            let shape = with_len(&model.shape, dim, len);
            let shown = model.mapped(shape, |at| with_len(at, dim, at[dim] + start));
            Some((tensor.narrow(dim, start, len).unwrap(), shown))
        }
        Step::Slice(dim, start, end, by) => {
            let dim = dim_of(*dim)?;
            let start = start % (model.shape[dim] + 1);
            let end = start + end % (model.shape[dim] - start + 1);
            let mut picks: Vec<usize> = (start..end).collect();
            if *by < 0 {
                picks.reverse();
            }
            let picks: Vec<usize> = picks.into_iter().step_by(by.unsigned_abs()).collect();
            let shape = with_len(&model.shape, dim, picks.len());
            let shown = model.mapped(shape, |at| with_len(at, dim, picks[at[dim]]));
            Some((tensor.slice(dim, start..end, *by).unwrap(), shown))
        }
        Step::Flip(dim) => {
            let dim = dim_of(*dim)?;
            let len = model.shape[dim];
            let shown = model.mapped(model.shape.clone(), |at| {
                with_len(at, dim, len - 1 - at[dim])
            });
            Some((tensor.flip(dim).unwrap(), shown))
        }
        Step::Select(dim, index) => {
            let dim = dim_of(*dim)?;
            let index = index % model.shape[dim].max(1);
            let mut shape = model.shape.clone();
            if shape.remove(dim) == 0 {
                assert!(tensor.select(dim, index).is_err());
                return None;
            }
            let shown = model.mapped(shape, |at| [&at[..dim], &[index], &at[dim..]].concat());
            Some((tensor.select(dim, index).unwrap(), shown))
        }
        _ => apply_reordering(step, tensor, model),
    }
}

fn apply_reordering(step: &Step, tensor: &Tensor, model: &Model) -> Option<(Tensor, Model)> {
    let rank = model.shape.len();
    let dim_of = |wish: usize| (rank > 0).then(|| wish % rank);
    match step {
        Step::Transpose(a, b) => {
            let (a, b) = (dim_of(*a)?, dim_of(*b)?);
            let swapped = |at: &[usize]| {
                let mut at = at.to_vec();
                at.swap(a, b);
                at
            };
            let shown = model.mapped(swapped(&model.shape), swapped);
            Some((tensor.transpose(a, b).unwrap(), shown))
        }
        Step::Permute(order) => {
            let order: Vec<usize> = order.iter().copied().filter(|&dim| dim < rank).collect();
            let shape = order.iter().map(|&dim| model.shape[dim]).collect();
            let shown = model.mapped(shape, |at| {
                let mut source = vec![0; rank];
                order
                    .iter()
                    .zip(at)
                    .for_each(|(&dim, &position)| source[dim] = position);
                source
            });
            Some((tensor.permute(&order).unwrap(), shown))
        }
        Step::Unsqueeze(dim) => {
            let dim = dim % (rank + 1);
            if rank == 8 {
                assert!(tensor.unsqueeze(dim).is_err());
                return None;
            }
            let mut shape = model.shape.clone();
            shape.insert(dim, 1);
            let shown = Model {
                shape,
                elements: model.elements.clone(),
            };
            Some((tensor.unsqueeze(dim).unwrap(), shown))
        }
        Step::Squeeze(dim) => {
            let dim = dim_of(*dim)?;
            let mut shape = model.shape.clone();
            if shape.remove(dim) != 1 {
                assert!(tensor.squeeze(dim).is_err());
                return None;
            }
            let shown = Model {
                shape,
                elements: model.elements.clone(),
            };
            Some((tensor.squeeze(dim).unwrap(), shown))
        }
        _ => apply_resizing(step, tensor, model),
    }
}

fn apply_resizing(step: &Step, tensor: &Tensor, model: &Model) -> Option<(Tensor, Model)> {
    let rank = model.shape.len();
    match step {
        Step::Broadcast(leading, repeats) => {
            let grown = model.shape.iter().zip(repeats);
            let grown = grown.map(|(&len, &times)| if len == 1 { times } else { len });
            let shape: Vec<usize> = leading.iter().copied().chain(grown).collect();
            if shape.len() > 8 || shape.iter().product::<usize>() > 2000 {
                return None;
            }
            let view = tensor.broadcast_to(&shape).unwrap();
            let shown = model.mapped(shape, |at| {
                let own = at[at.len() - rank..].iter().zip(&model.shape);
                own.map(|(&position, &len)| if len == 1 { 0 } else { position })
                    .collect()
            });
            Some((view, shown))
        }
        Step::Reshape(wishes) => {
            let shape = factored(model.elements.len(), wishes);
            match tensor.reshape(&shape) {
                Ok(view) => {
                    assert!(
                        model.has_strides(&shape),
                        "{model:?} to {shape:?} moved elements"
                    );
                    let elements = model.elements.clone();
                    Some((view, Model { shape, elements }))
                }
                Err(ViewError::NeedsCopy { .. }) => {
                    assert!(
                        !model.has_strides(&shape),
                        "{model:?} to {shape:?} needs no copy"
                    );
                    None
                }
                Err(error) => panic!("{error}"),
            }
        }
        _ => {
            let copy = tensor.contiguous().unwrap();
            assert_eq!(copy.to_vec::<u32>().unwrap(), model.elements);
            assert!(copy.is_contiguous());
            // The chain goes on in the first tensor's memory, where elements are their own distances.
            None
        }
    }
}

fn with_len(list: &[usize], at: usize, value: usize) -> Vec<usize> {
    let mut list = list.to_vec();
    list[at] = value;
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_chain_of_views_shows_the_elements_of_the_model(
        shape in prop::collection::vec(0_usize..5, 0..5),
        steps in steps(),
    ) {
        let (mut tensor, mut model) = (counted(&shape), Model::counted(&shape));
        for step in &steps {
            if let Some(next) = apply(step, &tensor, &model) {
                (tensor, model) = next;
            }
            prop_assert_eq!(tensor.shape(), &model.shape[..]);
            prop_assert_eq!(tensor.to_vec::<u32>().unwrap(), &model.elements[..], "{:?}", step);
            for (at, &element) in coordinates(&model.shape).iter().zip(&model.elements) {
                prop_assert_eq!(tensor.get::<u32>(at).unwrap(), element);
            }
            if tensor.is_contiguous() {
                prop_assert_eq!(tensor.as_slice::<u32>().unwrap(), &model.elements[..]);
            }
        }
    }

    #[test]
    fn what_is_copied_into_a_view_is_what_the_view_shows(
        shape in prop::collection::vec(0_usize..5, 0..5),
        steps in steps(),
    ) {
        let mut tensor = counted(&shape);
        let mut model = Model::counted(&shape);
        for step in &steps {
            if let Some(next) = apply(step, &tensor, &model) {
                (tensor, model) = next;
            }
        }
        let untouched: Vec<u32> = {
            let shown: std::collections::HashSet<u32> = model.elements.iter().copied().collect();
            (0..counted(&shape).elements() as u32).filter(|place| !shown.contains(place)).collect()
        };
        let fresh: Vec<u32> = (0..model.elements.len() as u32).map(|i| i + 10_000).collect();
        let source = Tensor::from_vec(fresh.clone(), &model.shape).unwrap();
        let mut distinct = model.elements.clone();
        distinct.sort_unstable();
        distinct.dedup();
        match tensor.copy_(&source) {
            Ok(()) => {
                prop_assert_eq!(distinct.len(), fresh.len());
                prop_assert_eq!(tensor.to_vec::<u32>().unwrap(), fresh);
                let memory = tensor.into_storage();
                for place in untouched {
                    prop_assert_eq!(memory.as_slice_of::<u32>().unwrap()[place as usize], place);
                }
            }
            Err(ViewError::Overlapping { .. }) => prop_assert!(distinct.len() < fresh.len()),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
