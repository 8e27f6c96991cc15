"""Labelled similarity matrices: what is read is what was written, and each fault is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from realign_utils.errors import UserError
from realign_utils.matrices import check_matrix, read_matrix, write_matrix

PUBLISHED = Path(__file__).parents[1] / "params" / "published"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "matrix.csv"
    path.write_text(text)
    return path


def test_a_matrix_survives_writing_and_reading_bit_by_bit(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((7, 7))
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 1.0)
    names = ["plain", "a,b", 'say "x"', "ä", "5", "two words", "model"]
    read_names, read = read_matrix(write_matrix(tmp_path / "new" / "m.csv", names, matrix))
    assert read_names == tuple(names)
    assert (read == matrix).all()


def test_the_published_matrices_are_read_labelled_or_not():
    names, labelled = read_matrix(PUBLISHED / "s4_cifar100_cka_digitised.csv")
    numbers, plain = read_matrix(PUBLISHED / "s1_cifar100_cka_digitised.csv")
    assert names[2] == "resnetblur50.bt_in1k"
    assert numbers[:2] == ("1", "2")
    assert labelled.shape == plain.shape == (20, 20)


def test_blanks_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = write(tmp_path, "﻿corner, a ,b\n\na,1,0.5\n b,0.5,1\n,,\n")
    assert read_matrix(path)[0] == ("a", "b")


FAULTS = {
    "": "is empty",
    "m,a,b\n": "no values",
    "m;a;b\na;1;0\nb;0;1\n": "separated by commas",
    "m,a,b\na,1,0\n": "must be square, but has 1 rows and 2 columns",
    "1,0,0\n0,1,0\n": "row 1 has 3 values, but there are 2 names",
    "m,a,b\na,1,0\nb,0\n": "row b has 1 values, but there are 2 names",
    "m,a,b\na,1,0\nc,0,1\n": "labels do not match: column 2 is 'b', row 2 is 'c'",
    "m,a,a\na,1,0\na,0,1\n": "label 'a' is repeated",
    "m,a,b\na,1,0.5\nb,0.4,1\n": "not symmetric: a, b is 0.5 but b, a is 0.4 (they differ by 0.1)",
    "m,a,b\na,1,nan\nb,0.4,1\n": "1 not finite, first nan at a, b",
    "m,a,b\na,1,\nb,0.4,1\n": "1 not finite, first nan at a, b",
    "m,a,b\na,1,inf\nb,inf,1\n": "2 not finite, first inf at a, b",
    "m,a,b\na,1,x\nb,x,1\n": "'x' at a, b is not a number",
}


@pytest.mark.parametrize(("text", "message"), FAULTS.items())
def test_a_faulty_file_is_one_line_that_names_the_file_and_the_fault(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_matrix(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_user_errors(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match=str(path)):
            read_matrix(path)


def test_a_file_that_is_no_text_is_a_user_error(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot read"):
        read_matrix(tmp_path / "binary.csv")


def test_a_diagonal_that_is_not_1_is_read_with_a_warning(tmp_path):
    path = write(tmp_path, "m,a,b\na,1,0.5\nb,0.5,7\n")
    with pytest.warns(UserWarning, match="diagonal is not 1 \\(b: 7\\)"):
        matrix = read_matrix(path)[1]
    assert matrix[1, 1] == 7


def test_rounding_differences_between_the_halves_are_averaged_away():
    matrix = check_matrix([[1.0, 0.5], [0.5 + 1e-9, 1.0]])
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(0.5 + 5e-10, abs=1e-16)


def test_tensors_are_taken_and_the_input_is_left_alone():
    tensor = torch.eye(3, dtype=torch.float32, requires_grad=True)
    matrix = check_matrix(tensor)
    matrix[0, 0] = 9
    assert matrix.dtype == np.float64
    assert tensor[0, 0] == 1


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0)), "text", [[1], [1, 2]]]
)
def test_what_is_no_square_array_of_numbers_is_refused(wrong):
    with pytest.raises(UserError):
        check_matrix(wrong)
