//! Builds a [`Plan`] op by op, checking every shape as it goes.

use super::{
    Act, Dynamics, Init, Input, NormKind, Op, OpKind, Param, ParamId, Plan, Rule, Scan, StateId, StateSlot,
    Tier, Value, ValueId, View,
};
use crate::{Error, Result};

/// Builds a plan; each method adds one op and returns a view of what it writes.
#[derive(Default)]
pub struct PlanBuilder {
    input: Option<Input>,
    values: Vec<Value>,
    params: Vec<Param>,
    states: Vec<StateSlot>,
    ops: Vec<Op>,
}

impl PlanBuilder {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// The input as f32 rows of `width`.
    pub fn samples(&mut self, width: usize) -> View {
        self.input = Some(Input::Samples(width));
        self.value("input", width, Tier { period: 1 })
    }

    /// The input as tokens below `vocabulary`, looked up in a table `[vocabulary, d]` named `{name}.weight`.
    pub fn embed(&mut self, name: &str, vocabulary: usize, d: usize) -> Result<View> {
        self.embed_all(&[(name, vocabulary, 0.02)], d)
    }

    /// The input as tokens that say several things, `a + A·b + A·B·c` with a below A and so on, each looked up in a table of its own,
    /// `{name}.weight`, `[A, d]` for one: the sum. A table is a name, A, and the deviation of its first values, which are normal.
    pub fn embed_all(&mut self, tables: &[(&str, usize, f32)], d: usize) -> Result<View> {
        let all = tables.iter().try_fold(1usize, |all, (_, count, _)| all.checked_mul(*count));
        let Some(vocabulary) = all.filter(|all| *all > 0 && *all <= u32::MAX as usize && d > 0) else {
            let (name, counts) = (tables.first().map_or("embed", |t| t.0), tables.iter().map(|t| t.1));
            let expected = "a vocabulary and a width of at least 1, and fewer than 2³² tokens";
            return Err(shape(name, expected, format!("{:?} and {d}", counts.collect::<Vec<_>>())));
        };
        self.input = Some(Input::Tokens(vocabulary));
        let token = self.value("input", 1, Tier { period: 1 });
        let (mut unit, mut sum) = (1, None);
        for (name, count, deviation) in tables {
            let table = self.param(format!("{name}.weight"), vec![*count, d], Init::Normal(*deviation), true);
            let y = self.op(name, OpKind::Embed { table, unit }, vec![token], d, token, None);
            unit *= count;
            sum = Some(match sum {
                Some(sum) => self.add(&format!("{name}.sum"), sum, y)?,
                None => y,
            });
        }
        sum.ok_or_else(|| shape("embed", "a table at least", "none".into()))
    }

    /// `act(W x + b)`; parameters `{name}.weight` and `{name}.bias`.
    pub fn linear(&mut self, name: &str, x: View, d_out: usize, bias: bool, act: Act) -> Result<View> {
        let bound = 1.0 / (x.width.max(1) as f32).sqrt();
        self.linear_with(name, x, d_out, bias.then_some(Init::Uniform(bound)), Init::Uniform(bound), act)
    }

    /// As [`linear`](Self::linear), with the initial distributions given; no bias for `None`.
    pub fn linear_with(
        &mut self,
        name: &str,
        x: View,
        d_out: usize,
        bias: Option<Init>,
        weight: Init,
        act: Act,
    ) -> Result<View> {
        if d_out == 0 || x.width == 0 {
            return Err(shape(name, "at least one input and one output", format!("{} and {d_out}", x.width)));
        }
        let rows = if act == Act::Glu { 2 * d_out } else { d_out };
        let weight = self.param(format!("{name}.weight"), vec![rows, x.width], weight, true);
        let bias = bias.map(|init| self.param(format!("{name}.bias"), vec![rows], init, false));
        Ok(self.op(name, OpKind::Linear { weight, bias, act }, vec![x], d_out, x, None))
    }

    /// A matrix product whose weight is an existing parameter `[d_out, d_in]` (tied embeddings).
    pub fn linear_tied(&mut self, name: &str, x: View, weight: ParamId) -> Result<View> {
        match self.params.get(weight.0).map(|p| p.shape.clone()).as_deref() {
            Some([d_out, d_in]) if *d_in == x.width => {
                let kind = OpKind::Linear { weight, bias: None, act: Act::None };
                Ok(self.op(name, kind, vec![x], *d_out, x, None))
            }
            other => Err(shape(name, &format!("a tied weight [_, {}]", x.width), format!("{other:?}"))),
        }
    }

    /// LayerNorm or RMSNorm; parameters `{name}.weight` and, for LayerNorm, `{name}.bias`.
    pub fn norm(&mut self, name: &str, x: View, kind: NormKind, eps: f32) -> Result<View> {
        if eps.is_nan() || eps <= 0.0 {
            return Err(shape(name, "an epsilon above 0", eps.to_string()));
        }
        let weight = self.param(format!("{name}.weight"), vec![x.width], Init::Const(1.0), false);
        let bias = (kind == NormKind::Layer)
            .then(|| self.param(format!("{name}.bias"), vec![x.width], Init::Const(0.0), false));
        let kind = OpKind::Norm { kind, weight, bias, eps_bits: eps.to_bits() };
        Ok(self.op(name, kind, vec![x], x.width, x, None))
    }

    /// Depthwise causal convolution of `taps` rows; parameters `{name}.weight` and `{name}.bias`.
    pub fn conv(&mut self, name: &str, x: View, taps: usize, bias: bool, act: Act) -> Result<View> {
        if taps == 0 {
            return Err(shape(name, "at least one tap", taps.to_string()));
        }
        no_glu(name, act)?;
        let bound = 1.0 / (taps as f32).sqrt();
        let weight = self.param(format!("{name}.weight"), vec![x.width, taps], Init::Uniform(bound), true);
        let bias =
            bias.then(|| self.param(format!("{name}.bias"), vec![x.width], Init::Uniform(bound), false));
        let state = self.state(name, taps - 1, x.width);
        Ok(self.op(name, OpKind::Conv { weight, bias, taps, act }, vec![x], x.width, x, Some(state)))
    }

    /// The selective scan of Mamba: Δ \[d\], B and C \[N\] (2N for complex A) come with each row.
    /// Parameters `{prefix}A_log`, `{prefix}A_imag` (complex), `{prefix}D`.
    pub fn selective_scan(
        &mut self,
        prefix: &str,
        [u, delta, b, c]: [View; 4],
        n: usize,
        complex: bool,
    ) -> Result<View> {
        let per_row = if complex { 2 * n } else { n };
        let got = [delta.width, b.width, c.width];
        if n == 0 || u.width == 0 || got != [u.width, per_row, per_row] {
            let expected = format!("Δ, B, C widths {:?}", [u.width, per_row, per_row]);
            return Err(shape(prefix, &expected, format!("{got:?}")));
        }
        let d = u.width;
        let a_init = if complex { Init::Const(0.5f32.ln()) } else { Init::ALogRamp };
        let scan = self.scan(prefix, d, n, complex, a_init, Dynamics::Selective);
        self.same_tier(prefix, &[u, delta, b, c])?;
        Ok(self.add_scan(prefix, scan, vec![u, delta, b, c]))
    }

    /// The time-invariant scan of S4D. Parameters `{prefix}log_dt`, `{prefix}A_log`, `{prefix}A_imag` (complex),
    /// `{prefix}C`, `{prefix}D`.
    pub fn invariant_scan(
        &mut self,
        prefix: &str,
        u: View,
        n: usize,
        complex: bool,
        rule: Rule,
    ) -> Result<View> {
        if n == 0 || u.width == 0 {
            return Err(shape(prefix, "at least one channel and one state", format!("{} and {n}", u.width)));
        }
        let d = u.width;
        let log_dt = self.param(format!("{prefix}log_dt"), vec![d], Init::LogUniform(1e-3, 1e-1), false);
        let c_shape = if complex { vec![d, n, 2] } else { vec![d, n] };
        let c = self.param(format!("{prefix}C"), c_shape, Init::Normal(0.5f32.sqrt()), false);
        let a_init = if complex { Init::Const(0.5f32.ln()) } else { Init::ALogRamp };
        let scan = self.scan(prefix, d, n, complex, a_init, Dynamics::Invariant { log_dt, c, rule });
        Ok(self.add_scan(prefix, scan, vec![u]))
    }

    fn scan(
        &mut self,
        prefix: &str,
        d: usize,
        n: usize,
        complex: bool,
        a_init: Init,
        dynamics: Dynamics,
    ) -> Scan {
        let a_log = self.param(format!("{prefix}A_log"), vec![d, n], a_init, false);
        let a_imag = complex.then(|| self.param(format!("{prefix}A_imag"), vec![d, n], Init::PiRamp, false));
        let skip = self.param(format!("{prefix}D"), vec![d], Init::Const(1.0), false);
        Scan { d, n, a_log, a_imag, skip, dynamics }
    }

    fn add_scan(&mut self, prefix: &str, scan: Scan, inputs: Vec<View>) -> View {
        let name = format!("{prefix}scan");
        let state = self.state(&name, scan.state_rows(), scan.d);
        let u = inputs[0];
        self.op(&name, OpKind::Scan(scan), inputs, scan.d, u, Some(state))
    }

    /// `x·act(z)`.
    pub fn gate(&mut self, name: &str, x: View, z: View, act: Act) -> Result<View> {
        no_glu(name, act)?;
        self.same_width(name, x, z)?;
        Ok(self.op(name, OpKind::Gate { act }, vec![x, z], x.width, x, None))
    }

    /// `act(x)`.
    pub fn activate(&mut self, name: &str, x: View, act: Act) -> Result<View> {
        no_glu(name, act)?;
        Ok(self.op(name, OpKind::Activate { act }, vec![x], x.width, x, None))
    }

    /// `a + b`.
    pub fn add(&mut self, name: &str, a: View, b: View) -> Result<View> {
        self.same_width(name, a, b)?;
        Ok(self.op(name, OpKind::Add, vec![a, b], a.width, a, None))
    }

    /// `x·(1 + s) + t`, with (s, t) the two halves of `st`.
    pub fn film(&mut self, name: &str, x: View, st: View) -> Result<View> {
        if st.width != 2 * x.width {
            return Err(shape(
                name,
                &format!("{} columns of scale and shift", 2 * x.width),
                st.width.to_string(),
            ));
        }
        self.same_tier(name, &[x, st])?;
        Ok(self.op(name, OpKind::Film, vec![x, st], x.width, x, None))
    }

    /// `x`, `rows` rows later.
    pub fn delay(&mut self, name: &str, x: View, rows: usize) -> Result<View> {
        let state = self.state(name, rows, x.width);
        Ok(self.op(name, OpKind::Delay { rows }, vec![x], x.width, x, Some(state)))
    }

    /// Every `period` rows, the last `window` rows side by side, oldest first.
    pub fn frame(&mut self, name: &str, x: View, period: usize, window: usize) -> Result<View> {
        if period == 0 || window < period {
            return Err(shape(
                name,
                "a window of at least one period of at least 1",
                format!("{window}, {period}"),
            ));
        }
        let tier = Tier { period: self.tier(x).period * period };
        let state = self.state(name, window - 1, x.width);
        let output = self.value(name, x.width * window, tier);
        Ok(self.push(name, OpKind::Frame { period, window }, vec![x], output, Some(state)))
    }

    /// Each row of `z` (`overlap·period·d` wide) laid over the following fine rows of width d and added, beginning
    /// `shift` coarse rows after its completion. Here d = width/period/overlap with overlap = 1.
    pub fn overlap(&mut self, name: &str, z: View, period: usize, shift: usize) -> Result<View> {
        self.overlap_add(name, z, period, shift, 1)
    }

    /// As [`overlap`](Self::overlap), with `overlap` coarse rows meeting at each fine row.
    pub fn overlap_add(
        &mut self,
        name: &str,
        z: View,
        period: usize,
        shift: usize,
        overlap: usize,
    ) -> Result<View> {
        let (coarse, fold) = (self.tier(z).period, period * overlap);
        if fold == 0
            || shift == 0
            || !z.width.is_multiple_of(fold)
            || z.width == 0
            || !coarse.is_multiple_of(period)
        {
            let expected = format!(
                "a shift above 0 and a width divisible by {period}·{overlap} at a tier divisible by {period}"
            );
            return Err(shape(name, &expected, format!("shift {shift}, width {}, tier {coarse}", z.width)));
        }
        let state = self.state(name, shift + overlap - 1, z.width);
        let output = self.value(name, z.width / fold, Tier { period: coarse / period });
        Ok(self.push(name, OpKind::Overlap { period, shift, overlap }, vec![z], output, Some(state)))
    }

    /// In training, a share `rate` of the channels zeroed; the identity elsewhere.
    pub fn dropout(&mut self, name: &str, x: View, rate: f32) -> Result<View> {
        if !(0.0..1.0).contains(&rate) {
            return Err(shape(name, "a rate of at least 0 and below 1", rate.to_string()));
        }
        Ok(self.op(name, OpKind::Dropout { rate_bits: rate.to_bits() }, vec![x], x.width, x, None))
    }

    /// Columns `offset .. offset + width` of `x`.
    pub fn columns(&self, x: View, offset: usize, width: usize) -> Result<View> {
        if offset + width > x.width {
            let name = &self.values[x.value.0].name;
            return Err(shape(
                name,
                &format!("columns below {}", x.width),
                format!("{offset}..{}", offset + width),
            ));
        }
        Ok(View { value: x.value, offset: x.offset + offset, width })
    }

    /// Replaces a parameter's initial distribution, e.g. a filter bank's.
    pub fn init(&mut self, name: &str, init: Init) -> Result<()> {
        let param = self.params.iter_mut().find(|p| p.name == name);
        param.ok_or_else(|| shape(name, "a parameter of the plan", "none of this name".into()))?.init = init;
        Ok(())
    }

    /// The number of the parameter of this name.
    pub fn find_param(&self, name: &str) -> Option<ParamId> {
        self.params.iter().position(|p| p.name == name).map(ParamId)
    }

    /// The plan that hands out `output`.
    pub fn build(self, output: View) -> Result<Plan> {
        let input = self.input.ok_or_else(|| shape("plan", "an input", "none".into()))?;
        let value = &self.values[output.value.0];
        if output.width != value.width || value.tier.period != 1 {
            return Err(shape("output", "a whole value of the outermost tier", format!("{value:?}")));
        }
        let mut names: Vec<_> = self.params.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(shape("plan", "parameter names that differ", format!("{} twice", twice[0])));
        }
        Ok(Plan {
            input,
            input_value: ValueId(0),
            output: output.value,
            values: self.values,
            params: self.params,
            states: self.states,
            ops: self.ops,
        })
    }

    fn tier(&self, x: View) -> Tier {
        self.values[x.value.0].tier
    }

    fn same_tier(&self, name: &str, views: &[View]) -> Result<()> {
        let tiers: Vec<_> = views.iter().map(|v| self.tier(*v).period).collect();
        if tiers.windows(2).any(|w| w[0] != w[1]) {
            return Err(shape(name, "inputs of one tier", format!("periods {tiers:?}")));
        }
        Ok(())
    }

    fn same_width(&self, name: &str, a: View, b: View) -> Result<()> {
        if a.width != b.width {
            return Err(shape(name, "two inputs of one width", format!("{} and {}", a.width, b.width)));
        }
        self.same_tier(name, &[a, b])
    }

    fn value(&mut self, name: &str, width: usize, tier: Tier) -> View {
        self.values.push(Value { name: name.into(), width, tier });
        View { value: ValueId(self.values.len() - 1), offset: 0, width }
    }

    fn param(&mut self, name: String, shape: Vec<usize>, init: Init, decay: bool) -> ParamId {
        self.params.push(Param { name, shape, init, decay });
        ParamId(self.params.len() - 1)
    }

    fn state(&mut self, name: &str, rows: usize, width: usize) -> StateId {
        self.states.push(StateSlot { name: name.into(), rows, width });
        StateId(self.states.len() - 1)
    }

    fn op(
        &mut self,
        name: &str,
        kind: OpKind,
        inputs: Vec<View>,
        width: usize,
        like: View,
        state: Option<StateId>,
    ) -> View {
        let output = self.value(name, width, self.tier(like));
        self.push(name, kind, inputs, output, state)
    }

    fn push(
        &mut self,
        name: &str,
        kind: OpKind,
        inputs: Vec<View>,
        output: View,
        state: Option<StateId>,
    ) -> View {
        self.ops.push(Op { name: name.into(), kind, inputs, output: output.value, state });
        output
    }
}

fn no_glu(name: &str, act: Act) -> Result<()> {
    if act == Act::Glu { Err(shape(name, "an elementwise activation", "glu".into())) } else { Ok(()) }
}

fn shape(name: &str, expected: &str, got: String) -> Error {
    Error::input(format!("plan op {name}"), expected, got)
}
