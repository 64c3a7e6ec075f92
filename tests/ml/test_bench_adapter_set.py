"""The round of large adapters in small: four updates of 13 MB, each step a process whose memory the kernel counts."""

from bench.adapter_set import BLOCK_MB, LIMIT_ADAPTERS, measure_adapter_set


def test_no_step_holds_much_more_than_one_adapter() -> None:
    """Files are mapped whole by the control, which takes all four: resident pages count, whoever owns them."""
    results = {
        result.name.removeprefix("adapter_set_extra_mb/"): result
        for result in measure_adapter_set("small", with_few=False, with_control=True)
    }
    adapter_mb = results["write"].notes["adapter_mb"]
    assert adapter_mb > 12
    assert results.pop("check_mapped").median > 3 * adapter_mb
    for step, result in results.items():
        assert result.median < result.notes["limit_mb"] < LIMIT_ADAPTERS * adapter_mb + BLOCK_MB + 1, step
    assert results["check"].median < 2 * adapter_mb
    assert results["merge"].median < 2 * adapter_mb
