//! mamba-rs: its allocation-free CPU step, weights as `[in, out]`; the head is its own matrix-vector product over the
//! transposed table.

use mamba_rs::ops::blas::matvec_forward;
use mamba_rs::{MambaConfig, MambaState, MambaStepScratch, MambaWeights, mamba_step_no_proj};

use crate::{Engine, Model, Result, VOCABULARY};

pub struct MambaRs {
    config: MambaConfig,
    weights: MambaWeights,
    state: MambaState,
    scratch: MambaStepScratch,
    /// `[VOCABULARY, d_model]`.
    table: Vec<f32>,
    /// `[d_model, VOCABULARY]`.
    head: Vec<f32>,
    hidden: Vec<f32>,
}

/// `[out, in]` as `[in, out]`.
fn transposed(x: &[f32], d_in: usize) -> Vec<f32> {
    let d_out = x.len() / d_in;
    (0..x.len()).map(|i| x[(i % d_out) * d_in + i / d_out]).collect()
}

impl MambaRs {
    pub fn new(model: &Model) -> Result<Self> {
        let config = MambaConfig {
            d_model: model.d_model,
            d_state: 16,
            d_conv: 4,
            expand: 2,
            n_layers: model.layers,
            rms_norm_eps: 1e-5,
            ..MambaConfig::default()
        };
        let mut weights = MambaWeights::zeros(&config, 1);
        for (i, layer) in weights.layers.iter_mut().enumerate() {
            let tensor = |name: &str| model.tensor(&format!("layers.{i}.{name}"));
            let matrix = |name: &str, d_in: usize| {
                Ok::<_, Box<dyn std::error::Error>>(transposed(tensor(name)?, d_in))
            };
            layer.norm_weight = tensor("norm.weight")?.to_vec();
            layer.in_proj_w = matrix("mixer.in_proj.weight", config.d_model)?;
            layer.conv1d_weight = tensor("mixer.conv1d.weight")?.to_vec();
            layer.conv1d_bias = tensor("mixer.conv1d.bias")?.to_vec();
            layer.x_proj_w = matrix("mixer.x_proj.weight", config.d_inner())?;
            layer.dt_proj_w = matrix("mixer.dt_proj.weight", config.dt_rank())?;
            layer.dt_proj_b = tensor("mixer.dt_proj.bias")?.to_vec();
            layer.a_log = tensor("mixer.A_log")?.to_vec();
            layer.d_param = tensor("mixer.D")?.to_vec();
            layer.out_proj_w = matrix("mixer.out_proj.weight", config.d_inner())?;
            layer.compute_a_neg();
        }
        weights.norm_f_weight = model.tensor("norm_f.weight")?.to_vec();
        weights.validate(&config, 1)?;
        let table = model.tensor("embedding.weight")?.to_vec();
        Ok(Self {
            state: MambaState::zeros(config.n_layers, config.d_inner(), config.d_state, config.d_conv),
            scratch: MambaStepScratch::new(&config),
            head: transposed(&table, config.d_model),
            hidden: vec![0.0; config.d_model],
            table,
            weights,
            config,
        })
    }
}

impl Engine for MambaRs {
    fn name(&self) -> String {
        "mamba-rs 0.5.3, gemm-blas".into()
    }

    fn step(&mut self, token: u32, logits: &mut [f32]) -> Result<()> {
        let d = self.config.d_model;
        let row = &self.table[token as usize * d..][..d];
        let layers = &mut self.state.layers;
        mamba_step_no_proj(row, &mut self.hidden, &self.weights, layers, &mut self.scratch, &self.config);
        matvec_forward(logits, &self.hidden, &self.head, None, d, VOCABULARY);
        Ok(())
    }
}
