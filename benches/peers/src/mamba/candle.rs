//! candle-transformers' Mamba, whose forward is one step.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::mamba::{Config, Model as Net, State};

use crate::{Engine, Model, Result, VOCABULARY};

pub struct Candle {
    net: Net,
    state: State,
}

impl Candle {
    pub fn new(model: &Model) -> Result<Self> {
        let config = Config {
            d_model: model.d_model,
            n_layer: model.layers,
            vocab_size: VOCABULARY,
            pad_vocab_size_multiple: 1,
        };
        let mut tensors = HashMap::new();
        for (param, values) in model.plan.params.iter().zip(model.weights.tensors()) {
            let name = param.name.trim_start_matches("backbone.");
            let mut shape = param.shape.clone();
            if name.ends_with("conv1d.weight") {
                shape.insert(1, 1);
            }
            tensors.insert(name.to_string(), Tensor::from_slice(values, shape, &Device::Cpu)?);
        }
        let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let net = Net::new(&config, builder)?;
        Ok(Self { net, state: State::new(1, &config, DType::F32, &Device::Cpu)? })
    }
}

impl Engine for Candle {
    fn name(&self) -> String {
        "candle-transformers 0.11".into()
    }

    fn step(&mut self, token: u32, logits: &mut [f32]) -> Result<()> {
        let out = self.net.forward(&Tensor::new(&[token], &Device::Cpu)?, &mut self.state)?;
        logits.copy_from_slice(&out.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}
