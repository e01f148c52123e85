"""What the contract remembers decoded must be safe to hand out many times."""

import msgspec
import pytest
from watt_chain.contract.access import FLAT

SCALARS = (msgspec.inspect.IntType, msgspec.inspect.BytesType, msgspec.inspect.StrType, msgspec.inspect.BoolType)


@pytest.mark.parametrize("kind", sorted(FLAT, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_an_object_that_is_remembered_decoded_has_no_part_that_could_be_changed(kind: type[msgspec.Struct]) -> None:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType) and kind.__struct_config__.frozen
    for field in info.fields:
        types = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        assert all(isinstance(one, (*SCALARS, msgspec.inspect.LiteralType)) for one in types), field.name
