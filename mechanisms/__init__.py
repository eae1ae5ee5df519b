"""Privacy mathematics: numbers in, numbers out; no SQL, no files, no database.

Map of the folder
    loss        PrivacyLoss, the price of anything, as exact decimals rounded up
    event       the frozen facts a loss is computed from, in a versioned form
    pricing     what events cost on both rails
    filter      the two-rail stopping rule: may one more loss be added?
    randomness  the only source of random bits
    laplace     exact discrete Laplace noise, its scale, its error, its losses
    gaussian    exact discrete Gaussian noise, its scale, its error, its losses
    conversion  from Renyi divergence to (epsilon, delta) and back
    threshold   partition selection: which noisy counts may show their key
    repetition  the best of a secret number of runs: its law and its losses
    randomized_response  categories kept by chance; shuffling: what shuffled rows cost
    bounds      exp, log and the normal tail with certified error bounds
"""
