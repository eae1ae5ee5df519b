"""From SQL text and a policy to a priced plan: reads no row, spends nothing.

Map of the folder, in the order of the road
    policy      what the data owner declares, read from YAML
    catalog     the same as facts about tables and columns, for the stages below
    domain      what values an expression can take
    refusal     every rule by which a question is refused, with its counter-example
    parse       text to one SELECT
    expression  our own frozen scalar nodes
    functions   the allow-list: types, domains and total SQL of every function
    relation    our own frozen relational nodes
    scope       what each name stands for
    scalar      scalars to expressions
    formula     a published model as arithmetic; predictions finds where it is called
    joins       FROM to one relation that keeps the patient
    subqueries  EXISTS and IN, tied to the same patient
    windows     windows within a patient, or over released rows
    unit_*      aggregates and windows within one patient
    collector   the measures of one GROUP BY; measures, moments and quantiles fill it
    totals      ROLLUP and its kin over one finest release
    bind        SELECTs to nodes; what no line of bind claims is refused
    narrowing   WHERE conditions to tighter bounds and key lists
    bounding    contribution bounding: the SQL that bounds and the sensitivity, from one object
    bounded_sql the statements that bound and measure
    price       epsilon to mechanisms, scales and steps
    uncertainty noisy numbers to intervals
    emit        our nodes to SQL for the database
    training_view, feature, sufficient  a SELECT of rows for training, its encoded columns, and the
                statement that adds up their products
    canonical   equal questions to equal keys
    plan        what explain shows
"""
