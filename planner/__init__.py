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
    bind        names to nodes; what no line of bind claims is refused
    bounding    contribution bounding: the SQL that bounds and the sensitivity, from one object
    price       epsilon to mechanisms, scales and steps
    emit        our nodes to SQL for the database
    canonical   equal questions to equal keys
    plan        what explain shows
"""
