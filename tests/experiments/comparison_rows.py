"""A row of comparisons.json that the tests of wording and report share."""


def comparison(**changes):
    """A comparison as the runner writes it."""
    row = {
        **{"arm": "synthetic", "reference": "real", "test_set": "test", "family": "primary"},
        **{"scope": "method", "auc_arm": 0.8742, "auc_reference": 0.8712, "delta_auc": 0.0030},
        **{"ci_low": -0.0081, "ci_high": 0.0142, "ci90_low": -0.006, "ci90_high": 0.012},
        **{"p": 0.5923, "p_holm": 0.6, "ci_low_models": -0.0061, "ci_high_models": 0.0122},
        **{"p_models": 0.4571, "p_delong": 0.4131, "se_groups": 0.0045, "se_seeds": 0.0021},
        **{"se_gans": 0.001, "df_groups": 41.5, "df_seeds": 4.0, "df_gans": 2.0},
        **{"se_crossed": 0.002, "mde": 0.0192, "mde_helps": 0.0181, "mde_hurts": 0.0192},
        **{"mde_level": 0.05, "verdict": "inconclusive", "why_undecidable": None, "margin": 0.01},
        **{"n": 412, "n_malignant": 58, "n_groups": 310, "n_malignant_groups": 44, "n_folds": 1},
        **{"n_seeds": 5, "n_gan_seeds": 3, "n_trainings": 15, "left_out": 0},
        **{"folds_left_out": [], "note": None},
    }
    row["trainings"] = [
        {"fold": 0, "seed": seed, "gan_seed": gan, "delta_auc": 0.003 + (seed - gan) / 1000}
        for seed in range(5)
        for gan in range(3)
    ]
    return row | changes
