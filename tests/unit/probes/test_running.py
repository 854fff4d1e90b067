from preflight.probes.running import outcomes_interval


def test_a_long_run_is_told_in_few_pieces() -> None:
    assert outcomes_interval(0.0) == outcomes_interval(10.0) == 1.0
    elapsed, pieces = 0.0, 0
    while elapsed < 1_400:
        elapsed += outcomes_interval(elapsed)
        pieces += 1
    assert pieces < 100
