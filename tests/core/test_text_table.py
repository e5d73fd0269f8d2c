from fma_core.simulation.table import NOTHING, text_table


def test_names_stand_to_the_left_and_numbers_to_the_right():
    assert text_table([["", "ms"], ["fma", "1.5"], ["numpy", "12.0"]]).splitlines() == [
        "         ms",
        "fma     1.5",
        "numpy  12.0",
    ]
    assert text_table([["round"], ["1"]], num_left=0) == "round\n    1"


def test_a_column_without_a_number_is_left_out():
    assert text_table([["way", "ms", "MiB"], ["fma", "1.5", NOTHING], ["numpy", "", ""]]) == (
        "way     ms\nfma    1.5\nnumpy     "
    )


def test_a_table_without_lines_has_its_head():
    assert text_table([["round", "asked"]]) == "round  asked"
